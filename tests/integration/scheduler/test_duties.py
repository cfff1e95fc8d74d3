"""Ready, grant, reclaim and reconcile, each against real stores."""

import asyncio
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from codefleet.clock import in_seconds, utc_now
from codefleet.domain.queues import Executor, Queue
from codefleet.domain.states import State
from codefleet.domain.tasks import Attempt, Task
from codefleet.domain.transitions import Transition
from codefleet.domain.workers import WorkerState
from codefleet.errors import UnavailableError
from codefleet.messages import Grants
from codefleet.queueing.broker import inbox_of
from codefleet.queueing.ready_index import entry_of
from services.scheduler.duties.reconcile import ReconcileDuty
from tests.integration.scheduler.conftest import Fleet
from tests.support.tasks import make_task, put


async def inserted(fleet: Fleet, **fields: Any) -> Task:
    """A task that MongoDB knows and the ready index does not."""
    task = make_task(**fields)
    await fleet.stores.tasks.insert(task)
    return task


async def take(fleet: Fleet, count: int = 100) -> list[str]:
    return await fleet.stores.ready.take([*Queue], count, now_milliseconds=round(time.time() * 1000))


def grants_sent(fleet: Fleet, worker_id: str) -> list[tuple[str, int]]:
    key = f"{fleet.broker.namespace}:{inbox_of(worker_id)}.msgs"
    messages = [msgspec.json.decode(raw) for raw in fleet.broker.client.hvals(key)]
    return [
        (grant.task_id, grant.epoch)
        for message in messages
        for grant in msgspec.convert(message["args"][0], Grants).grants
    ]


# Ready


async def test_a_task_that_fails_while_it_is_made_ready_keeps_its_back_off(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
):
    task = await inserted(fleet, due_at=in_seconds(-1), state=State.RETRY)
    back_off_ends = in_seconds(60)
    add = fleet.stores.ready.add

    async def add_then_run(entries: Any) -> None:
        await add(entries)
        change = {"$set": {"due_at": back_off_ends, "epoch": 1}}
        await fleet.stores.mongo.collection("tasks").update_one({"_id": task.task_id}, change)

    monkeypatch.setattr(fleet.stores.ready, "add", add_then_run)
    assert await fleet.ready.run() == 1
    assert (await fleet.task(task)).due_at == back_off_ends


# Reconcile


async def old(fleet: Fleet, **fields: Any) -> Task:
    """As `inserted`, ten seconds ago."""
    ten_seconds_ago = in_seconds(-10)
    task = make_task(created_at=ten_seconds_ago, **fields)
    task.task_id = f"{round(ten_seconds_ago.timestamp() * 1000):012x}{task.task_id.replace('-', '')[12:]}"
    task.task_id = "-".join(
        [task.task_id[:8], task.task_id[8:12], task.task_id[12:16], task.task_id[16:20], task.task_id[20:]]
    )
    await fleet.stores.tasks.insert(task)
    return task


async def test_a_submit_that_died_before_it_was_indexed_is_found(fleet: Fleet):
    await fleet.index_is_whole()
    lost = [await old(fleet), await old(fleet, state=State.RETRY, executor=Executor.CLAUDE)]
    await old(fleet, state=State.RUNNING)
    await old(fleet, due_at=in_seconds(60))
    assert await fleet.reconcile.run() == 2
    assert sorted(await take(fleet)) == sorted(task.task_id for task in lost)


async def test_a_submit_under_way_is_left_to_its_submitter(fleet: Fleet):
    await fleet.index_is_whole()
    await inserted(fleet)
    assert await fleet.reconcile.run() == 0
    assert await take(fleet) == []


async def test_nothing_is_missing_where_nothing_was_lost(fleet: Fleet):
    await fleet.index_is_whole()
    indexed = await old(fleet)
    await fleet.stores.ready.add([entry_of(indexed)])
    taken = await old(fleet)
    await fleet.stores.ready.add([entry_of(taken)])
    for _ in range(3):
        assert await fleet.reconcile.run() == 0
    assert await take(fleet) == sorted([indexed.task_id, taken.task_id])
    assert await fleet.reconcile.run() == 0
    assert await fleet.stores.ready.depth(Queue.DEFAULT) == 0


async def test_a_task_lost_long_ago_is_found_by_the_sweep(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.scheduler.duties.reconcile._BATCH", 3)
    await fleet.index_is_whole()
    lost = [await old(fleet) for _ in range(10)]
    sweeping = ReconcileDuty(fleet.stores.tasks, fleet.stores.ready)
    sweeping._recent = "f"  # every submit has had its check
    found = [await sweeping.run() for _ in range(5)]
    assert sum(found) == 10
    assert sorted(await take(fleet)) == sorted(task.task_id for task in lost)


async def spoil(fleet: Fleet, task: Task) -> None:
    """Makes a document that no version of ours has written."""
    collection = fleet.stores.mongo.collection("tasks")
    await collection.update_one({"_id": task.task_id}, {"$set": {"effective_priority": "high"}})


async def test_a_document_that_cannot_be_read_hides_none_behind_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.scheduler.duties.reconcile._BATCH", 3)
    await fleet.index_is_whole()
    lost = [await old(fleet) for _ in range(8)]
    await spoil(fleet, lost.pop(1))
    assert [await fleet.reconcile._check_next() for _ in range(3)] == [2, 3, 2]
    assert [await fleet.reconcile._check_recent() for _ in range(3)] == [0, 0, 0]
    await fleet.lose_redis()
    assert await fleet.reconcile.run() == 7
    assert sorted(await take(fleet)) == sorted(task.task_id for task in lost)


async def test_a_round_that_failed_is_repeated(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.scheduler.duties.reconcile._BATCH", 3)
    await fleet.index_is_whole()
    lost = [await old(fleet) for _ in range(3)]

    async def away(*_: object) -> None:
        raise UnavailableError("away")

    for check in (fleet.reconcile._check_recent, fleet.reconcile._check_next):
        with monkeypatch.context() as patch:
            patch.setattr(fleet.stores.ready, "add", away)
            with pytest.raises(UnavailableError):
                await check()
        assert await check() == 3
        assert sorted(await take(fleet)) == sorted(task.task_id for task in lost)
        await fleet.stores.ready.forget_taken(task.task_id for task in lost)


async def test_an_empty_redis_is_filled_again_as_a_whole(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.scheduler.duties.reconcile._BATCH", 7)
    waiting = [await put(fleet.stores, state=State.RETRY if index % 3 else State.PENDING) for index in range(30)]
    await put(fleet.stores, state=State.SUCCESS)
    assert await fleet.reconcile.run() == 30
    await fleet.lose_redis()
    assert await fleet.stores.ready.depth(Queue.DEFAULT) == 0
    assert await fleet.reconcile.run() == 30
    assert await fleet.stores.ready.is_whole()
    assert await fleet.reconcile.run() == 0
    assert await take(fleet) == [task.task_id for task in waiting]


async def test_what_a_dead_scheduler_had_in_hand_is_restored(fleet: Fleet):
    await fleet.index_is_whole()
    waiting, running = await put(fleet.stores), await put(fleet.stores)
    ten_seconds_ago = round((time.time() - 10) * 1000)
    assert len(await fleet.stores.ready.take([Queue.DEFAULT], 10, now_milliseconds=ten_seconds_ago)) == 2
    grant_by_the_dead = Transition(
        task_id=running.task_id,
        path=(State.PENDING, State.RECEIVED),
        cause="granted",
        actor="scheduler",
        attempt=0,
        fields={"worker_id": "w", "epoch": 1},
        renews_lease=True,
    )
    assert await fleet.stores.tasks.apply(grant_by_the_dead)
    assert await fleet.reconcile.run() == 1
    assert await take(fleet) == [waiting.task_id]
    assert await fleet.stores.ready.taken_before(ten_seconds_ago) == []


async def test_what_a_scheduler_has_in_hand_right_now_is_left_to_it(fleet: Fleet):
    await fleet.index_is_whole()
    await put(fleet.stores)
    assert await take(fleet)
    assert await fleet.reconcile.run() == 0
    assert await take(fleet) == []


async def test_restoring_does_not_cut_a_back_off_short(fleet: Fleet):
    await fleet.index_is_whole()
    await put(fleet.stores, state=State.RETRY, due_at=in_seconds(60))
    await fleet.stores.ready.take([Queue.DEFAULT], 10, now_milliseconds=round((time.time() - 10) * 1000))
    assert await fleet.reconcile.run() == 0
    assert await take(fleet) == []


# Ready


async def test_what_is_due_is_promoted_exactly_once(fleet: Fleet):
    due = [await inserted(fleet, state=State.RETRY, due_at=in_seconds(-1)) for _ in range(3)]
    later = await inserted(fleet, due_at=in_seconds(60))
    assert await fleet.ready.run() == 3
    assert await fleet.ready.run() == 0
    assert sorted(await take(fleet)) == [task.task_id for task in due]
    assert [(await fleet.task(task)).due_at for task in due] == [None] * 3
    assert (await fleet.task(later)).due_at == later.due_at


async def test_more_than_a_batch_is_promoted_in_one_go(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.scheduler.duties.ready._BATCH", 4)
    await asyncio.gather(*(inserted(fleet, due_at=in_seconds(-1)) for _ in range(10)))
    assert await fleet.ready.run() == 10
    assert await fleet.stores.ready.depth(Queue.DEFAULT) == 10


# Grant


async def test_a_grant_is_written_down_and_announced(fleet: Fleet):
    await fleet.worker("w")
    task = await put(fleet.stores, epoch=4, attempt=2, state=State.RETRY)
    await fleet.occupancy.refresh()
    assert await fleet.grant.run() == 1
    granted = await fleet.task(task)
    assert (granted.state, granted.worker_id, granted.epoch) == (State.RECEIVED, "w", 5)
    assert granted.lease_renewed_at is not None
    assert grants_sent(fleet, "w") == [(task.task_id, 5)]
    assert await fleet.stores.ready.taken_before(round(time.time() * 1000) + 1000) == []


async def test_no_worker_gets_more_than_it_has_slots_for(fleet: Fleet):
    await fleet.worker("small", slots=1)
    await fleet.worker("large", slots=4)
    tasks = [await put(fleet.stores) for _ in range(10)]
    await fleet.occupancy.refresh()
    assert await fleet.grant.run() == 5
    assert await fleet.grant.run() == 0
    await fleet.occupancy.refresh()  # the truth says the same
    assert await fleet.grant.run() == 0
    held = Counter(task.worker_id for task in await fleet.tasks(State.RECEIVED))
    assert held == {"small": 1, "large": 4}
    assert {task.task_id for task in await fleet.tasks(State.RECEIVED)} == {task.task_id for task in tasks[:5]}
    assert await fleet.stores.ready.depth(Queue.DEFAULT) == 5


async def test_a_freed_slot_is_granted_again_at_once(fleet: Fleet):
    await fleet.worker("w", slots=1)
    first, second = await put(fleet.stores), await put(fleet.stores)
    await fleet.occupancy.refresh()
    assert await fleet.grant.run() == 1
    fleet.occupancy.free("w", "unknown", 1)
    assert await fleet.grant.run() == 0
    fleet.occupancy.free("w", first.task_id, 0)
    assert await fleet.grant.run() == 0, "late news of an earlier epoch"
    fleet.occupancy.free("w", first.task_id, 1)
    assert await fleet.grant.run() == 1
    assert (await fleet.task(second)).worker_id == "w"


async def test_work_goes_to_the_least_loaded(fleet: Fleet):
    await fleet.worker("busy", slots=3)
    await fleet.worker("idle", slots=3)
    for _ in range(2):
        await inserted(fleet, state=State.RUNNING, worker_id="busy", epoch=1, lease_renewed_at=utc_now())
    await fleet.occupancy.refresh()
    granted = []
    for _ in range(3):
        task = await put(fleet.stores)
        await fleet.grant.run()
        granted.append((await fleet.task(task)).worker_id)
    assert granted == ["idle", "idle", "busy"]


@pytest.mark.parametrize("state", [WorkerState.DRAINING, WorkerState.LOST, WorkerState.GONE])
async def test_only_workers_that_are_online_are_granted_anything(fleet: Fleet, state: WorkerState):
    await fleet.worker("w", state=state)
    task = await put(fleet.stores)
    await fleet.occupancy.refresh()
    assert await fleet.grant.run() == 0
    assert (await fleet.task(task)).state is State.PENDING
    assert await take(fleet) == [task.task_id]


async def test_a_worker_gets_only_what_its_queues_hold(fleet: Fleet):
    await fleet.worker("claude")
    await fleet.worker("cursor", queues=("cursor_execution", "default"))
    tasks = {executor: await put(fleet.stores, executor=executor) for executor in Executor}
    await fleet.occupancy.refresh()
    assert await fleet.grant.run() == 3
    assert (await fleet.task(tasks[Executor.CLAUDE])).worker_id == "claude"
    assert (await fleet.task(tasks[Executor.CURSOR])).worker_id == "cursor"


async def test_entries_of_tasks_that_do_not_wait_are_dropped_when_taken(fleet: Fleet):
    await fleet.worker("w", slots=2)
    stale = [await put(fleet.stores, state=state) for state in (State.CANCELLED, State.RUNNING, State.SUCCESS)]
    unknown = make_task()
    await fleet.stores.ready.add([entry_of(unknown)])
    task = await put(fleet.stores)
    await fleet.occupancy.refresh()
    assert await fleet.grant.run() == 1
    assert (await fleet.task(task)).state is State.RECEIVED
    assert [(await fleet.task(one)) for one in stale] == stale
    assert await fleet.stores.ready.depth(Queue.DEFAULT) == 0
    assert await fleet.stores.ready.taken_before(round(time.time() * 1000) + 1000) == []


async def test_a_task_backing_off_is_not_granted_by_a_leftover_entry(fleet: Fleet):
    await fleet.worker("w")
    task = await put(fleet.stores, state=State.RETRY, due_at=in_seconds(60))
    await fleet.occupancy.refresh()
    assert await fleet.grant.run() == 0
    assert await fleet.task(task) == task


async def test_two_schedulers_at_once_never_grant_one_task_twice(fleet: Fleet):
    await fleet.worker("w", slots=1000)
    tasks = [await put(fleet.stores) for _ in range(120)]
    schedulers = [fleet.new_scheduler() for _ in range(3)]
    for occupancy, _ in schedulers:
        await occupancy.refresh()

    async def keep_adding() -> None:
        for _ in range(10):  # a confused reconciliation puts everything back all the time
            await fleet.stores.ready.add(entry_of(task) for task in tasks)

    granted = await asyncio.gather(*(duty.run() for _, duty in schedulers), keep_adding())
    granted_later = [await duty.run() for _, duty in schedulers]
    assert sum(filter(None, [*granted, *granted_later])) == len(tasks)
    now = [await fleet.task(task) for task in tasks]
    assert {(task.state, task.epoch, len(task.history)) for task in now} == {(State.RECEIVED, 1, 1)}
    assert sorted(grants_sent(fleet, "w")) == sorted((task.task_id, 1) for task in tasks)


async def test_redis_going_away_after_the_grant_leaves_the_truth_whole(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    from redis import ConnectionError as RedisConnectionError

    def refuse(*_: object) -> None:
        raise RedisConnectionError("away")

    await fleet.worker("w")
    task = await put(fleet.stores)
    await fleet.occupancy.refresh()
    monkeypatch.setattr(fleet.broker, "send_grants", refuse)
    assert await fleet.grant.run() == 1
    assert (await fleet.task(task)).state is State.RECEIVED


# Occupancy


async def test_a_slot_that_is_freed_twice_is_one_free_slot(fleet: Fleet):
    await fleet.worker("w", slots=1)
    task = await put(fleet.stores)
    await fleet.occupancy.refresh()
    await fleet.grant.run()
    fleet.occupancy.free("w", task.task_id, 1)
    fleet.occupancy.free("w", task.task_id, 1)
    assert fleet.occupancy.groups()[Queue.CLAUDE_EXECUTION, Queue.DEFAULT]["w"].free == 1


# Reclaim


async def held(fleet: Fleet, state: State, *, seconds: float = 100, **fields: Any) -> Task:
    """A task whose lease was last renewed so long ago."""
    values: dict[str, Any] = {
        "state": state,
        "worker_id": "gone",
        "epoch": 1,
        "attempt": 1,
        "lease_renewed_at": utc_now() - timedelta(seconds=seconds),
        "attempts": [Attempt(number=1, epoch=1, worker_id="gone", started_at=utc_now())],
    }
    return await inserted(fleet, **(values | fields))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.RECEIVED, State.PENDING),
        (State.STARTED, State.RETRY),
        (State.RUNNING, State.RETRY),
        (State.WAITING_CONFIRMATION, State.RETRY),
        (State.CANCELLING, State.CANCELLED),
    ],
)
async def test_a_task_whose_lease_has_ended_goes_on_elsewhere(fleet: Fleet, state: State, expected: State):
    task = await held(fleet, state)
    assert await fleet.run_reclaim() == 1
    after = await fleet.task(task)
    assert after.state is expected
    assert after.worker_id is None
    assert after.lease_renewed_at is None
    assert after.loss_count == (1 if expected is State.RETRY else 0)
    assert after.retry_count == 0
    assert [(move.from_, move.to, move.actor) for move in after.history] == [(state, expected, "scheduler")]
    assert after.attempts[0].outcome == expected
    assert after.attempts[0].ended_at is not None
    assert await fleet.run_reclaim() == 0
    if expected is not State.CANCELLED:
        assert await fleet.ready.run() == 1
        assert await take(fleet) == [task.task_id]


async def test_the_third_loss_ends_a_task_as_poison(fleet: Fleet):
    task = await held(fleet, State.RUNNING, loss_count=2)
    assert await fleet.run_reclaim() == 1
    after = await fleet.task(task)
    assert after.state is State.FAILURE
    assert after.error is not None
    assert after.error.code == "POISON_TASK"
    assert after.loss_count == 3
    assert after.completed_at is not None
    assert after.attempts[0].error == after.error


async def test_leases_in_force_are_left_alone(fleet: Fleet):
    tasks = [await held(fleet, State.RUNNING, seconds=1), await held(fleet, State.RECEIVED, seconds=1)]
    assert await fleet.run_reclaim() == 0
    assert [await fleet.task(task) for task in tasks] == tasks


async def test_a_grant_that_nobody_claims_goes_back_earlier_than_a_lease_ends(fleet: Fleet):
    between = (fleet.settings.claim_seconds + fleet.settings.lease_seconds) / 2
    unclaimed = await held(fleet, State.RECEIVED, seconds=between)
    running = await held(fleet, State.RUNNING, seconds=between)
    assert await fleet.run_reclaim() == 1
    assert (await fleet.task(unclaimed)).state is State.PENDING
    assert (await fleet.task(running)).state is State.RUNNING


async def test_a_lease_renewed_at_the_last_moment_is_not_reclaimed(fleet: Fleet):
    task = await held(fleet, State.RUNNING)
    seen = await fleet.task(task)
    assert await fleet.stores.tasks.renew("gone", {task.task_id: 1}) == {task.task_id: State.RUNNING}
    assert not await fleet.reclaim._reclaim(seen, worker_is_gone=True)
    after = await fleet.task(task)
    assert after.state is State.RUNNING
    assert after.history == []


async def test_reclaiming_and_settling_at_once_ends_in_one_of_the_two(fleet: Fleet):
    for _ in range(10):
        task = await held(fleet, State.RUNNING)
        settle = Transition(
            task_id=task.task_id,
            path=(State.RUNNING, State.SUCCESS),
            epoch=1,
            cause="done",
            actor="worker:gone",
            attempt=1,
            fields={"worker_id": None, "lease_renewed_at": None},
        )
        reclaimed, settled = await asyncio.gather(fleet.run_reclaim(), fleet.stores.tasks.apply(settle))
        assert reclaimed + settled == 1
        assert (await fleet.task(task)).state is (State.SUCCESS if settled else State.RETRY)


async def test_two_schedulers_reclaim_a_task_once(fleet: Fleet):
    task = await held(fleet, State.RUNNING)
    assert sorted(await asyncio.gather(*(fleet.run_reclaim() for _ in range(3)))) == [0, 0, 1]
    assert (await fleet.task(task)).loss_count == 1


async def test_a_silent_worker_is_given_up_and_its_inbox_discarded(fleet: Fleet):
    await fleet.worker("w")
    await fleet.worker("alive")
    await put(fleet.stores)
    await put(fleet.stores)
    await fleet.occupancy.refresh()
    await fleet.grant.run()
    assert len(grants_sent(fleet, "w")) == 1
    await fleet.stores.mongo.collection("workers").update_one(
        {"_id": "w"},
        {"$set": {"heartbeat_at": utc_now() - timedelta(minutes=5)}},
    )
    await fleet.run_reclaim()
    assert grants_sent(fleet, "w") == []
    assert len(grants_sent(fleet, "alive")) == 1
    await fleet.occupancy.refresh()
    assert set(fleet.occupancy.groups()[Queue.CLAUDE_EXECUTION, Queue.DEFAULT]) == {"alive"}
