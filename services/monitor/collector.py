"""What the monitor measures: the state of the fleet, read from the stores when Prometheus asks."""

import time
from collections import Counter

import msgspec

from codefleet.domain.queues import Queue
from codefleet.domain.states import State
from codefleet.domain.workers import Worker
from codefleet.queue_figures import QueueFigures, read_queues
from codefleet.service import Stores

_FRESH_SECONDS = 2.0
"""Scrapes closer together than this share one reading."""
_COUNTS_FRESH_SECONDS = 15.0
"""Counting all tasks there ever were costs more than the rest together."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet at one moment; `states` may be `_COUNTS_FRESH_SECONDS` older."""

    taken_at: float
    states: dict[State, int]
    queues: dict[Queue, QueueFigures]
    workers: list[Worker]
    busy_slots: dict[str, int]


class Collector:
    """Reads at most every `_FRESH_SECONDS`, however often it is asked."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._last: Reading | None = None
        self._states: dict[State, int] = {}
        self._counted_at: float | None = None

    async def read(self) -> Reading:
        """Raises UnavailableError while MongoDB is away."""
        if self._last is None or time.monotonic() - self._last.taken_at > _FRESH_SECONDS:
            self._last = await self._take()
        return self._last

    async def _take(self) -> Reading:
        tasks = self._stores.tasks
        return Reading(
            taken_at=time.monotonic(),
            states=await self._count(),
            queues=await read_queues(tasks, self._stores.ready),
            workers=await self._stores.workers.present(),
            busy_slots=Counter(lease.worker_id for lease in await tasks.leases()),
        )

    async def _count(self) -> dict[State, int]:
        if self._counted_at is None or time.monotonic() - self._counted_at > _COUNTS_FRESH_SECONDS:
            self._states = await self._stores.tasks.count_by_state()
            self._counted_at = time.monotonic()
        return self._states
