"""The register of workers in a real MongoDB."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from codefleet.clock import utc_now
from codefleet.domain.workers import Worker, WorkerState
from codefleet.service import Stores
from codefleet.storage.workers import WorkerRepository


@pytest.fixture
def workers(stores: Stores) -> WorkerRepository:
    return stores.workers


def worker(worker_id: str = "w", **fields: Any) -> Worker:
    values: dict[str, Any] = {
        "worker_id": worker_id,
        "executor": "claude",
        "queues": ["claude_execution", "default"],
        "hostname": "h",
        "pid": 1,
        "slots": 3,
        "state": WorkerState.ONLINE,
        "started_at": utc_now(),
    }
    return Worker(**(values | fields))


async def one(workers: WorkerRepository) -> Worker:
    (found,) = await workers.recent(10)
    return found


async def fall_silent(stores: Stores, worker_id: str = "w") -> None:
    await stores.mongo.collection("workers").update_one(
        {"_id": worker_id},
        {"$set": {"heartbeat_at": utc_now() - timedelta(minutes=5)}},
    )


async def test_a_worker_is_present_from_its_registration(workers: WorkerRepository):
    assert await workers.present() == []
    await workers.register(worker())
    (found,) = await workers.present()
    assert found.heartbeat_at is not None
    assert abs(found.heartbeat_at - utc_now()) < timedelta(minutes=1)
    await workers.register(worker(slots=5))
    assert (await one(workers)).slots == 5


async def test_draining_workers_are_present_and_gone_ones_are_not(workers: WorkerRepository):
    await workers.register(worker())
    await workers.set_state("w", WorkerState.DRAINING)
    assert [found.state for found in await workers.present()] == [WorkerState.DRAINING]
    await workers.set_state("w", WorkerState.GONE)
    assert await workers.present() == []
    await workers.heartbeat("w")
    assert (await one(workers)).state is WorkerState.GONE


async def test_a_heartbeat_of_nobody_registers_nobody(workers: WorkerRepository):
    await workers.heartbeat("unknown")
    assert await workers.recent(10) == []


async def test_a_silent_worker_is_given_up_once_and_comes_back_with_its_heartbeat(
    stores: Stores, workers: WorkerRepository
):
    await workers.register(worker())
    await workers.register(worker("alive"))
    assert await workers.give_up_silent(silent_seconds=60) == []
    await fall_silent(stores)
    assert [lost.worker_id for lost in await workers.give_up_silent(silent_seconds=60)] == ["w"]
    assert await workers.give_up_silent(silent_seconds=60) == []
    assert [found.worker_id for found in await workers.present()] == ["alive"]
    await workers.heartbeat("w")
    assert {found.worker_id for found in await workers.present()} == {"w", "alive"}


async def test_a_worker_that_said_goodbye_is_not_lost(stores: Stores, workers: WorkerRepository):
    await workers.register(worker())
    await workers.set_state("w", WorkerState.GONE)
    await fall_silent(stores)
    assert await workers.give_up_silent(silent_seconds=60) == []


async def test_several_schedulers_give_up_a_worker_without_harm(stores: Stores, workers: WorkerRepository):
    await workers.register(worker())
    await fall_silent(stores)
    await asyncio.gather(*(workers.give_up_silent(silent_seconds=60) for _ in range(5)))
    assert (await one(workers)).state is WorkerState.LOST


async def test_recent_workers_come_latest_first(workers: WorkerRepository):
    now = utc_now()
    for age in (3, 1, 2):
        await workers.register(worker(f"w{age}", started_at=now - timedelta(hours=age)))
    assert [found.worker_id for found in await workers.recent(2)] == ["w1", "w2"]


async def test_a_draining_worker_that_was_given_up_comes_back_as_draining(stores: Stores, workers: WorkerRepository):
    await workers.register(worker())
    await workers.set_state("w", WorkerState.DRAINING)
    await fall_silent(stores)
    (lost,) = await workers.give_up_silent(silent_seconds=60)
    assert lost.state is WorkerState.LOST
    await workers.heartbeat("w")
    assert (await one(workers)).state is WorkerState.DRAINING


@pytest.mark.parametrize("moment", ["before the update", "after the update"])
async def test_a_worker_that_is_heard_of_just_in_time_is_not_given_up(
    stores: Stores, workers: WorkerRepository, monkeypatch: pytest.MonkeyPatch, moment: str
):
    class Interrupted:
        """The collection, with a heartbeat of `w` around each update of many."""

        def __getattr__(self, name: str) -> Any:
            return getattr(collection, name)

        async def update_many(self, *args: Any) -> None:
            if moment == "before the update":
                await others.heartbeat("w")
            await collection.update_many(*args)
            await others.heartbeat("w")

    collection, others = stores.mongo.collection("workers"), WorkerRepository(stores.mongo)
    monkeypatch.setattr(workers, "_workers", Interrupted())
    for name in ("w", "dead"):
        await workers.register(worker(name))
        await fall_silent(stores, name)
    assert [lost.worker_id for lost in await workers.give_up_silent(silent_seconds=60)] == ["dead"]


async def test_only_workers_that_are_gone_or_lost_are_removed_in_time(stores: Stores, workers: WorkerRepository):
    async def leaving() -> set[str]:
        found = stores.mongo.collection("workers").find({"gone_at": {"$type": "date"}})
        return {raw["_id"] async for raw in found}

    for name in ("online", "draining", "gone", "lost", "back"):
        await workers.register(worker(name))
    await workers.set_state("draining", WorkerState.DRAINING)
    await workers.set_state("gone", WorkerState.GONE)
    for name in ("lost", "back"):
        await fall_silent(stores, name)
    await workers.give_up_silent(silent_seconds=60)
    assert await leaving() == {"gone", "lost", "back"}
    for name in ("online", "draining", "gone", "back"):
        await workers.heartbeat(name)
    assert await leaving() == {"gone", "lost"}
    await workers.register(worker("gone"))
    assert await leaving() == {"lost"}
    indexes = await stores.mongo.collection("workers").index_information()
    assert [index["key"] for index in indexes.values() if index.get("expireAfterSeconds") == 7 * 24 * 3600] == [
        [("gone_at", 1)]
    ]


async def test_workers_are_found_by_their_state(stores: Stores, workers: WorkerRepository):
    for number in range(20):
        await workers.register(worker(f"gone{number}", state=WorkerState.GONE))
    await workers.register(worker())
    await stores.mongo.database.command("profile", 2)
    assert len(await workers.present()) == 1
    assert await workers.give_up_silent(silent_seconds=60) == []
    await stores.mongo.database.command("profile", 0)
    ran = await stores.mongo.collection("system.profile").find({"command.find": "workers"}).to_list(None)
    assert [found["docsExamined"] for found in ran] == [1, 1]
