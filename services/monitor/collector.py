"""What the monitor measures: the state of the fleet, read from the stores when Prometheus asks."""

import time
from datetime import datetime

import msgspec

from codefleet.clock import utc_now
from codefleet.domain.queues import Queue
from codefleet.domain.states import State
from codefleet.domain.workers import Worker
from codefleet.errors import UnavailableError
from codefleet.service import Stores

_FRESH_SECONDS = 2.0
"""Scrapes closer together than this share one reading."""


class QueueReading(msgspec.Struct, frozen=True, kw_only=True):
    """`ready` is None while Redis is away; times are seconds."""

    ready: int | None
    running: int
    oldest_waiting_seconds: float


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet at one moment."""

    taken_at: float
    states: dict[State, int]
    queues: dict[Queue, QueueReading]
    workers: list[Worker]
    busy_slots: dict[str, int]


class Collector:
    """Reads at most every `_FRESH_SECONDS`, however often it is asked."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._last: Reading | None = None

    async def read(self) -> Reading:
        """Raises UnavailableError while MongoDB is away."""
        if self._last is None or time.monotonic() - self._last.taken_at > _FRESH_SECONDS:
            self._last = await self._take()
        return self._last

    async def _take(self) -> Reading:
        tasks = self._stores.tasks
        running = await tasks.count_running_by_queue()
        busy: dict[str, int] = {}
        for lease in await tasks.leases():
            busy[lease.worker_id] = busy.get(lease.worker_id, 0) + 1
        now = utc_now()
        return Reading(
            taken_at=time.monotonic(),
            states=await tasks.count_by_state(),
            queues={queue: await self._queue(queue, running.get(queue, 0), now) for queue in Queue},
            workers=await self._stores.workers.present(),
            busy_slots=busy,
        )

    async def _queue(self, queue: Queue, running: int, now: datetime) -> QueueReading:
        oldest = await self._stores.tasks.oldest_ready(queue)
        try:
            ready = await self._stores.ready.depth(queue)
        except UnavailableError:
            ready = None
        return QueueReading(
            ready=ready,
            running=running,
            oldest_waiting_seconds=(now - oldest.created_at).total_seconds() if oldest else 0.0,
        )
