"""The leader's loops: grant on each wake-up; make ready, reclaim and reconcile each at its own pace."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from codefleet.errors import UnavailableError
from codefleet.messages import Hint, SlotFreed, WorkersChanged
from codefleet.queueing.broker import GrantBroker
from codefleet.queueing.streams import read_stream, wake_stream
from codefleet.service import Stores
from codefleet.settings import Settings
from services.scheduler.duties.grant import GrantDuty
from services.scheduler.duties.ready import ReadyDuty
from services.scheduler.duties.reclaim import ReclaimDuty
from services.scheduler.duties.reconcile import ReconcileDuty
from services.scheduler.leader import Leader
from services.scheduler.occupancy import Occupancy

_RECLAIM_SECONDS = 0.5
_RECONCILE_SECONDS = 1.0
_REFRESH_SECONDS = 2.0

log = structlog.get_logger(__name__)

Duty = Callable[[], Awaitable[object]]


class SchedulerLoop:
    """Leads from its creation on; a new one is made for each term of leadership, so that nothing stale survives."""

    def __init__(self, stores: Stores, settings: Settings, leader: Leader, broker: GrantBroker) -> None:
        self._stores = stores
        self._settings = settings
        self._leader = leader
        self._woken = asyncio.Event()
        self._occupancy = Occupancy(stores.tasks, stores.workers)
        self._ready = ReadyDuty(stores.tasks, stores.ready)
        self._grant = GrantDuty(
            tasks=stores.tasks,
            ready=stores.ready,
            broker=broker,
            notices=stores.notices,
            occupancy=self._occupancy,
            redis_prefix=settings.redis_prefix,
        )
        self._reclaim = ReclaimDuty(stores.tasks, stores.workers, broker, stores.notices, settings)
        self._reconcile = ReconcileDuty(stores.tasks, stores.ready)
        self._refresh_at = 0.0

    async def lead(self) -> None:
        """Returns when the leadership is over; raises if one of the loops ends by a mistake of ours."""
        async with asyncio.TaskGroup() as loops:
            others = [
                loops.create_task(self._listen()),
                loops.create_task(self._repeat(_RECONCILE_SECONDS, "reconcile", self._reconcile.run)),
                loops.create_task(self._repeat(_RECLAIM_SECONDS, "reclaim", self._reclaim.run)),
                loops.create_task(self._repeat(self._settings.tick_seconds, "ready", self._promote)),
            ]
            await self._dispatch()
            for loop in others:
                loop.cancel()

    async def _dispatch(self) -> None:
        """The short way: nothing but grants between a wake-up and the workers."""
        while self._leader.leads:
            if time.monotonic() >= self._refresh_at:
                self._refresh_at = time.monotonic() + _REFRESH_SECONDS
                await self._attempt("refresh", self._occupancy.refresh)
            await self._attempt("grant", self._grant.run)
            await self._wait()

    async def _repeat(self, seconds: float, name: str, duty: Duty) -> None:
        """Each duty has a loop of its own: one that is slow or fails does not hold up the others."""
        while self._leader.leads:
            await self._attempt(name, duty)
            await asyncio.sleep(seconds)

    async def _promote(self) -> None:
        if await self._ready.run():
            self._woken.set()

    async def _attempt(self, name: str, duty: Duty) -> None:
        try:
            await duty()
        except UnavailableError as error:
            log.warning("duty put off", duty=name, reason=error.message)
        except Exception:
            # A document that cannot be read must not end the others' duties, nor this one for good.
            log.exception("duty failed", duty=name)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._settings.tick_seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    async def _listen(self) -> None:
        async for hint in read_stream(self._stores.redis, wake_stream(self._settings.redis_prefix), Hint):
            match hint:
                case SlotFreed(worker_id=worker_id, task_id=task_id, epoch=epoch):
                    self._occupancy.free(worker_id, task_id, epoch)
                case WorkersChanged():
                    self._refresh_at = 0.0
            self._woken.set()
