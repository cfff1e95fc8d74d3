"""The leader's loops, all duties together."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from codefleet.clock import in_seconds
from codefleet.domain.states import State
from codefleet.domain.tasks import Task
from codefleet.queueing.broker import GrantBroker
from codefleet.service import Stores
from codefleet.settings import Settings
from codefleet.storage.leadership import LeadershipRepository
from services.scheduler.duties.reclaim import ReclaimDuty
from services.scheduler.duties.reconcile import ReconcileDuty
from services.scheduler.leader import Leader
from services.scheduler.loop import SchedulerLoop
from tests.integration.scheduler.conftest import Fleet
from tests.support.tasks import make_task
from tests.support.waiting import eventually, finished


@pytest.fixture
async def leading(stores: Stores, settings: Settings) -> AsyncIterator[SchedulerLoop]:
    leader = Leader(LeadershipRepository(stores.mongo, "scheduler"), lease_seconds=settings.leader_lease_seconds)
    keeping = asyncio.create_task(leader.keep())
    await leader.elected()
    broker = GrantBroker(settings.redis_url, settings.redis_prefix)
    loop = SchedulerLoop(stores, settings, leader, broker)
    running = asyncio.create_task(loop.lead())
    yield loop
    keeping.cancel()
    await asyncio.wait({keeping})
    await leader.resign()
    await finished([running])


async def granted(fleet: Fleet, task: Task) -> None:
    async def state() -> State:
        return (await fleet.task(task)).state

    await eventually(state, until=lambda found: found is State.RECEIVED)


@pytest.mark.usefixtures("leading")
async def test_a_task_that_nobody_announced_is_granted_when_it_is_due(fleet: Fleet):
    await fleet.worker("w")
    task = make_task(due_at=in_seconds(0.5))
    await fleet.stores.tasks.insert(task)
    await granted(fleet, task)


@pytest.mark.usefixtures("leading")
async def test_all_waiting_tasks_are_granted_although_redis_was_emptied(fleet: Fleet):
    tasks = [make_task() for _ in range(3)]
    for task in tasks:
        await fleet.stores.tasks.insert(task)
    await fleet.lose_redis()
    await fleet.worker("w")
    for task in tasks:
        await granted(fleet, task)


@pytest.fixture
def broken_duties(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Reclaim and reconcile raise whenever they run; the event tells that one has."""
    tried = asyncio.Event()

    async def broken(_: object) -> int:
        tried.set()
        raise ZeroDivisionError("a bug, or a document that cannot be read")

    monkeypatch.setattr(ReclaimDuty, "run", broken)
    monkeypatch.setattr(ReconcileDuty, "run", broken)
    return tried


async def test_a_duty_that_fails_holds_up_no_other(
    broken_duties: asyncio.Event,
    leading: SchedulerLoop,  # noqa: ARG001 - begins to lead after the duties were broken
    fleet: Fleet,
):
    async with asyncio.timeout(5):
        await broken_duties.wait()
    await fleet.worker("w")
    task = make_task(due_at=in_seconds(0.2))
    await fleet.stores.tasks.insert(task)
    await granted(fleet, task)
