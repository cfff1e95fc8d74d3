"""Ready: tasks whose schedule or back-off has run out enter the ready index."""

from codefleet.queueing.ready_index import ReadyIndex, entry_of
from codefleet.storage.tasks import TaskRepository

_BATCH = 500


class ReadyDuty:
    def __init__(self, tasks: TaskRepository, ready: ReadyIndex) -> None:
        self._tasks = tasks
        self._ready = ready

    async def run(self) -> int:
        """Promotes what is due and tells how many.

        The index is filled first and the document is marked second: a crash between the two only repeats the first.
        """
        promoted = 0
        while due := await self._tasks.due(_BATCH):
            await self._ready.add(entry_of(task) for task in due)
            await self._tasks.clear_due([task.task_id for task in due])
            promoted += len(due)
        return promoted
