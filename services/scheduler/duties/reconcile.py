"""Reconcile: the ready index is brought into line with MongoDB, continuously and cheaply, or as a whole.

Three things can leave a waiting task out of the index: a submit that died before it could add it, a scheduler that
died with it in hand, and a Redis that lost its data. Each has its own way back here. The other way round needs
nothing: an entry whose task does not wait is dropped when it is taken.
"""

import time

import structlog

from codefleet.clock import first_id_at, in_seconds
from codefleet.queueing.ready_index import ReadyIndex, entry_of
from codefleet.storage.tasks import TaskRepository, Waiting

_BATCH = 1000
_SETTLING_SECONDS = 2.0
"""A task younger than this may still be on its way into the index."""
_LOOK_BACK_SECONDS = 60.0
"""How far back a new leader looks for submits that its predecessor missed."""
_TAKEN_SECONDS = 5.0
"""Far longer than any scheduler keeps tasks in hand."""
_LAST_ID = "g"
"""Sorts after every id, which is hexadecimal."""

log = structlog.get_logger(__name__)


class ReconcileDuty:
    def __init__(self, tasks: TaskRepository, ready: ReadyIndex) -> None:
        self._tasks = tasks
        self._ready = ready
        self._recent = first_id_at(in_seconds(-_LOOK_BACK_SECONDS))
        self._sweep = ""

    async def run(self) -> int:
        """One round; tells how many tasks were missing from the index."""
        if not await self._ready.is_whole():
            return await self._rebuild()
        return await self._restore_taken() + await self._check_recent() + await self._check_next()

    async def _rebuild(self) -> int:
        started, count = time.monotonic(), 0
        await self._ready.begin_rebuild()
        after: str | None = ""
        while after is not None:
            page = await self._tasks.ready_after(after, _LAST_ID, _BATCH)
            await self._ready.add(entry_of(task) for task in page.tasks)
            count, after = count + len(page.tasks), page.next_after
        whole = await self._ready.end_rebuild()
        log.warning("ready index rebuilt", tasks=count, whole=whole, seconds=round(time.monotonic() - started, 2))
        return count

    async def _restore_taken(self) -> int:
        """What a scheduler took and never accounted for."""
        forgotten = await self._ready.taken_before(round((time.time() - _TAKEN_SECONDS) * 1000))
        if not forgotten:
            return 0
        waiting = await self._tasks.candidates(forgotten)
        await self._ready.add([entry_of(task) for task in await self._tasks.get_many(list(waiting))])
        await self._ready.forget_taken(forgotten)
        return len(waiting)

    async def _check_recent(self) -> int:
        """Every task once, shortly after its submit."""
        until = first_id_at(in_seconds(-_SETTLING_SECONDS))
        page = await self._tasks.ready_after(self._recent, until, _BATCH)
        count = await self._add_missing(page.tasks)
        # Only now: a round that failed is repeated from where it began.
        self._recent = page.next_after or max(self._recent, until)
        return count

    async def _check_next(self) -> int:
        """All tasks in turn, a batch a round."""
        until = first_id_at(in_seconds(-_SETTLING_SECONDS))
        page = await self._tasks.ready_after(self._sweep, until, _BATCH)
        count = await self._add_missing(page.tasks)
        self._sweep = page.next_after or ""
        return count

    async def _add_missing(self, tasks: list[Waiting]) -> int:
        missing = await self._ready.missing([entry_of(task) for task in tasks])
        await self._ready.add(missing)
        if missing:
            log.warning("tasks were missing from the ready index", count=len(missing))
        return len(missing)
