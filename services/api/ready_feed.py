"""From submit to ready: stored tasks enter the ready index in the background, and the scheduler is told."""

import asyncio

import structlog

from codefleet.domain.tasks import Task
from codefleet.errors import UnavailableError
from codefleet.messages import TasksReady
from codefleet.queueing.ready_index import Entry, ReadyIndex, entry_of
from codefleet.queueing.streams import StreamWriter, wake_stream

_MAX_WAITING = 10_000
_BATCH = 500

log = structlog.get_logger(__name__)


class ReadyFeed:
    """Never makes its caller wait. What Redis does not take is dropped: reconciliation finds it in MongoDB."""

    def __init__(self, ready: ReadyIndex, notices: StreamWriter, prefix: str) -> None:
        self._ready = ready
        self._notices = notices
        self._wake = wake_stream(prefix)
        self._adding: dict[str, Entry] = {}
        self._removing: dict[str, Task] = {}
        self._worker: asyncio.Task[None] | None = None

    def offer(self, task: Task) -> None:
        """Takes a stored task on its way to the scheduler."""
        if task.due_at is not None:
            # The scheduler promotes it when it is due; it only has to learn that there is one more.
            self._notices.send(self._wake, TasksReady())
        elif len(self._adding) < _MAX_WAITING:
            self._adding[task.task_id] = entry_of(task)
            self._work()

    def withdraw(self, task: Task) -> None:
        """Takes a task that does not wait any more out of the index."""
        self._adding.pop(task.task_id, None)
        if len(self._removing) < _MAX_WAITING:
            self._removing[task.task_id] = task
            self._work()

    async def close(self) -> None:
        """Returns when everything taken so far is in the index or dropped."""
        if self._worker is not None:
            await self._worker

    def _work(self) -> None:
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work_all())

    async def _work_all(self) -> None:
        try:
            while self._adding or self._removing:
                added = [self._adding.pop(key) for key in list(self._adding)[:_BATCH]]
                removed, self._removing = self._removing, {}
                try:
                    await self._write(added, list(removed.values()))
                except UnavailableError:
                    log.warning("ready index not told", added=len(added), removed=len(removed))
        finally:
            self._worker = None

    async def _write(self, added: list[Entry], removed: list[Task]) -> None:
        if added:
            await self._ready.add(added)
            self._notices.send(self._wake, TasksReady())
        for task in removed:
            await self._ready.remove(task)
