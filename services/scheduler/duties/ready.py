"""Ready: tasks whose schedule or back-off has run out enter the ready index."""

from codefleet.clock import utc_now
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
        while due := await self._tasks.due(now := utc_now(), _BATCH):
            await self._ready.add(entry_of(task) for task in due)
            # Meanwhile one of them may have been granted and have failed: its new back-off is later than `now`.
            await self._tasks.clear_due([task.task_id for task in due], now)
            promoted += len(due)
        return promoted
