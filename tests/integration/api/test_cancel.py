"""POST /tasks/{id}/cancel and DELETE /tasks/{id}."""

import asyncio
from typing import Any

import pytest

from codefleet.clock import utc_now
from codefleet.domain.queues import Queue
from codefleet.domain.states import TERMINAL, State
from codefleet.domain.tasks import Task
from codefleet.domain.transitions import Transition
from codefleet.queueing.streams import control_stream, events_stream, wake_stream
from codefleet.service import Stores
from tests.support.tasks import make_task, put
from tests.support.waiting import eventually


async def read(stores: Stores, task: Task) -> Task:
    found = await stores.tasks.get(task.task_id)
    assert found is not None
    return found


async def leased(stores: Stores, state: State, **fields: Any) -> Task:
    task = make_task(user_id="alice", state=state, worker_id="w1", epoch=3, lease_renewed_at=utc_now(), **fields)
    await stores.tasks.insert(task)
    return task


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_waiting_task_is_cancelled_at_once_and_leaves_the_index(alice, stores, method):
    task = await put(stores, user_id="alice")
    path = f"/tasks/{task.task_id}" + ("/cancel" if method == "POST" else "")
    response = await alice.request(method, path)
    assert response.status_code == 202
    assert response.json()["data"]["status"] == "cancelled"
    stored = await read(stores, task)
    assert stored.completed_at is not None
    assert (stored.due_at, stored.worker_id, stored.lease_renewed_at) == (None, None, None)
    assert stored.history[-1].actor == "user:alice"
    await eventually(lambda: stores.ready.depth(Queue.DEFAULT), until=lambda depth: depth == 0)


async def test_a_reason_is_kept_in_the_history(alice, stores):
    task = await put(stores, user_id="alice")
    await alice.post(f"/tasks/{task.task_id}/cancel", json={"reason": "not needed any more"})
    assert (await read(stores, task)).history[-1].cause == "cancelled on request: not needed any more"


@pytest.mark.parametrize("body", [{"reason": 1}, {"reason": "x" * 501}, {"reason": "a\nb"}, {"because": "x"}])
async def test_a_wrong_reason_is_refused_and_changes_nothing(alice, stores, body):
    task = await put(stores, user_id="alice")
    assert (await alice.post(f"/tasks/{task.task_id}/cancel", json=body)).status_code == 422
    assert (await read(stores, task)).state is State.PENDING


async def test_a_task_that_waits_for_its_retry_is_not_due_any_more(alice, stores):
    task = make_task(user_id="alice", state=State.RETRY, due_at=utc_now())
    await stores.tasks.insert(task)
    await alice.delete(f"/tasks/{task.task_id}")
    stored = await read(stores, task)
    assert (stored.state, stored.due_at) == (State.CANCELLED, None)


async def test_a_granted_task_is_cancelled_before_it_starts_and_its_slot_is_free(alice, stores, settings):
    task = await leased(stores, State.RECEIVED)
    assert (await alice.delete(f"/tasks/{task.task_id}")).json()["data"]["status"] == "cancelled"
    stored = await read(stores, task)
    assert (stored.worker_id, stored.lease_renewed_at) == (None, None)
    notices = await eventually(lambda: stores.redis.xrange(wake_stream(settings.redis_prefix)))
    assert b"slot_freed" in notices[0][1][b"n"]


@pytest.mark.parametrize("state", [State.STARTED, State.RUNNING, State.WAITING_CONFIRMATION])
async def test_a_running_task_passes_through_cancelling_and_its_worker_is_told(alice, stores, settings, state):
    task = await leased(stores, state)
    response = await alice.post(f"/tasks/{task.task_id}/cancel")
    assert (response.status_code, response.json()["data"]["status"]) == (202, "cancelling")
    stored = await read(stores, task)
    assert (stored.worker_id, stored.completed_at) == ("w1", None)
    notices = await eventually(lambda: stores.redis.xrange(control_stream(settings.redis_prefix, "w1")))
    assert b"cancel_requested" in notices[0][1][b"n"]
    assert await eventually(lambda: stores.redis.xlen(events_stream(settings.redis_prefix)))


async def test_cancelling_again_changes_nothing_but_tells_the_worker_again(alice, stores, settings):
    task = await leased(stores, State.RUNNING)
    await alice.delete(f"/tasks/{task.task_id}")
    control = control_stream(settings.redis_prefix, "w1")
    await eventually(lambda: stores.redis.xlen(control), until=lambda count: count == 1)
    again = await alice.delete(f"/tasks/{task.task_id}")
    assert (again.status_code, again.json()["data"]["status"]) == (202, "cancelling")
    assert len(again.json()["data"]["history"]) == 1
    await eventually(lambda: stores.redis.xlen(control), until=lambda count: count == 2)


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_a_task_that_has_ended_cannot_be_cancelled(alice, stores, state):
    task = make_task(user_id="alice", state=state)
    await stores.tasks.insert(task)
    response = await alice.delete(f"/tasks/{task.task_id}")
    assert response.status_code == 409
    error = response.json()["error"]
    assert (error["code"], error["details"]) == ("ILLEGAL_TRANSITION", {"from": state, "to": "cancelled"})
    assert (await read(stores, task)).history == []


async def test_a_task_that_moves_meanwhile_is_decided_again(alice, stores, settings, monkeypatch):
    task = make_task(user_id="alice")
    await stores.tasks.insert(task)
    apply = stores.tasks.apply

    async def overtaken(transition: Transition) -> bool:
        monkeypatch.setattr(stores.tasks, "apply", apply)
        moves = Transition(
            task_id=task.task_id,
            path=(State.PENDING, State.RECEIVED, State.STARTED, State.RUNNING),
            cause="test",
            actor="test",
            attempt=1,
            fields={"worker_id": "w2", "epoch": 1},
        )
        assert await apply(moves)
        return await apply(transition)

    monkeypatch.setattr(stores.tasks, "apply", overtaken)
    response = await alice.delete(f"/tasks/{task.task_id}")
    assert response.json()["data"]["status"] == "cancelling"
    assert await eventually(lambda: stores.redis.xlen(control_stream(settings.redis_prefix, "w2")))


async def test_a_hundred_cancels_at_once_make_one_move(alice, stores):
    task = await put(stores, user_id="alice")
    responses = await asyncio.gather(*(alice.delete(f"/tasks/{task.task_id}") for _ in range(100)))
    assert sorted({response.status_code for response in responses}) in ([202], [202, 409])
    assert [move.to for move in (await read(stores, task)).history] == [State.CANCELLED]


async def test_only_the_owner_and_admins_cancel(bob, monitor, admin, stores):
    task = await put(stores, user_id="alice")
    assert (await bob.delete(f"/tasks/{task.task_id}")).status_code == 404
    assert (await monitor.delete(f"/tasks/{task.task_id}")).status_code == 403
    assert (await monitor.post(f"/tasks/{task.task_id}/cancel")).status_code == 403
    assert (await read(stores, task)).state is State.PENDING
    assert (await admin.delete(f"/tasks/{task.task_id}")).status_code == 202
