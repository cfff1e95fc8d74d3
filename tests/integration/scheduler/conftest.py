"""The scheduler's duties on real stores, one at a time."""

import time
from collections.abc import AsyncIterator

import pytest

from codefleet.clock import utc_now
from codefleet.domain.states import State
from codefleet.domain.tasks import Task
from codefleet.domain.workers import Worker, WorkerState
from codefleet.queueing.broker import GrantBroker
from codefleet.service import Stores
from codefleet.settings import Settings
from codefleet.storage.tasks import TaskRepository
from services.scheduler.duties.grant import GrantDuty
from services.scheduler.duties.ready import ReadyDuty
from services.scheduler.duties.reclaim import ReclaimDuty
from services.scheduler.duties.reconcile import ReconcileDuty
from services.scheduler.occupancy import Occupancy


class Fleet:
    """What a test sees and does around a scheduler's duties."""

    def __init__(self, stores: Stores, settings: Settings) -> None:
        self.stores = stores
        self.settings = settings
        self.broker = GrantBroker(settings.redis_url, settings.redis_prefix)
        self.ready = ReadyDuty(stores.tasks, stores.ready)
        self.reconcile = ReconcileDuty(stores.tasks, stores.ready)
        self.reclaim = ReclaimDuty(stores.tasks, stores.workers, self.broker, stores.notices, settings)
        self.occupancy, self.grant = self.new_scheduler()

    def new_scheduler(self) -> tuple[Occupancy, GrantDuty]:
        occupancy = Occupancy(TaskRepository(self.stores.mongo), self.stores.workers)
        duty = GrantDuty(
            tasks=TaskRepository(self.stores.mongo),
            ready=self.stores.ready,
            broker=self.broker,
            notices=self.stores.notices,
            occupancy=occupancy,
            redis_prefix=self.settings.redis_prefix,
        )
        return occupancy, duty

    async def worker(
        self,
        worker_id: str,
        *,
        slots: int = 3,
        state: WorkerState = WorkerState.ONLINE,
        queues: tuple[str, ...] = ("claude_execution", "default"),
    ) -> None:
        await self.stores.workers.register(
            Worker(
                worker_id=worker_id,
                executor="claude",
                queues=list(queues),
                hostname="h",
                pid=1,
                slots=slots,
                state=state,
                started_at=utc_now(),
            ),
        )

    async def run_reclaim(self) -> int:
        """One round of a duty that has looked all the time, so that nobody is given time to renew."""
        self.reclaim._last_run, self.reclaim._grace_until = time.monotonic(), 0.0
        return await self.reclaim.run()

    async def index_is_whole(self) -> None:
        await self.stores.ready.begin_rebuild()
        assert await self.stores.ready.end_rebuild()

    async def task(self, task: Task) -> Task:
        found = await self.stores.tasks.get(task.task_id)
        assert found is not None
        return found

    async def tasks(self, *states: State) -> list[Task]:
        raw = self.stores.mongo.collection("tasks").find({"state": {"$in": list(states)}}, {"_id": 1})
        return await self.stores.tasks.get_many([found["_id"] async for found in raw])

    async def lose_redis(self, matching: str = "*") -> None:
        redis = self.stores.redis
        keys = [key async for key in redis.scan_iter(f"{self.settings.redis_prefix}:{matching}")]
        if keys:
            await redis.delete(*keys)


@pytest.fixture
async def fleet(stores: Stores, settings: Settings) -> AsyncIterator[Fleet]:
    made = Fleet(stores, settings)
    yield made
    made.broker.close()
