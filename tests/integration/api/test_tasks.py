"""GET /tasks and GET /tasks/{id}."""

import asyncio
import time
from typing import Any

import pytest

from codefleet.clock import utc_now
from codefleet.domain.outcomes import Usage
from codefleet.domain.queues import Executor
from codefleet.domain.states import State
from codefleet.domain.tasks import Attempt, Task, TaskError
from codefleet.domain.transitions import Transition
from codefleet.messages import TaskChanged
from codefleet.queueing.streams import events_stream
from codefleet.service import Stores
from tests.support.tasks import make_task
from tests.support.waiting import eventually

UNKNOWN = "01a203f5-0192-7ae9-ac0f-67e77583934c"


async def insert(stores: Stores, **fields: Any) -> Task:
    task = make_task(**({"user_id": "alice"} | fields))
    await stores.tasks.insert(task)
    return task


def ids(response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["task_id"] for item in response.json()["data"]["items"]]


async def finish(stores: Stores, task: Task) -> None:
    move = Transition(
        task_id=task.task_id,
        path=(State.PENDING, State.CANCELLED),
        cause="test",
        actor="test",
        attempt=0,
        fields={"completed_at": utc_now()},
    )
    assert await stores.tasks.apply(move)


async def test_a_list_shows_the_newest_first_and_pages_by_offset_and_by_cursor(alice, stores):
    tasks = [await insert(stores) for _ in range(5)]
    newest_first = [task.task_id for task in reversed(tasks)]
    first = (await alice.get("/tasks", params={"limit": 2})).json()["data"]
    assert [item["task_id"] for item in first["items"]] == newest_first[:2]
    assert (first["total"], first["limit"], first["offset"], first["has_more"]) == (5, 2, 0, True)
    await insert(stores)  # does not shift what follows the cursor
    second = await alice.get("/tasks", params={"limit": 2, "cursor": first["next_cursor"]})
    assert ids(second) == newest_first[2:4]
    last = await alice.get("/tasks", params={"limit": 2, "cursor": second.json()["data"]["next_cursor"]})
    assert ids(last) == newest_first[4:]
    assert (last.json()["data"]["has_more"], last.json()["data"]["next_cursor"]) == (False, None)
    assert ids(await alice.get("/tasks", params={"offset": 1, "limit": 2})) == newest_first[:2]


async def test_items_of_a_list_are_light(alice, stores):
    await insert(stores, state=State.SUCCESS, result={"large": "x" * 1000})
    [item] = (await alice.get("/tasks")).json()["data"]["items"]
    assert not {"history", "attempts", "result"} & set(item)
    assert (item["status"], item["name"]) == ("success", "test")


async def test_every_filter_filters(admin, stores):
    now = utc_now()
    one = await insert(stores, project_id="p1", tags=["red", "blue"], priority=8, executor=Executor.CLAUDE)
    two = await insert(stores, type="agent", user_id="bob", state=State.SUCCESS, completed_at=now)
    three = await insert(stores, state=State.RUNNING, worker_id="w")
    expected = {
        "project_id=p1": [one],
        "tag=blue": [one],
        "priority=8": [one],
        "priority=high": [one],
        "executor=claude": [one],
        "type=agent": [two],
        "user_id=bob": [two],
        "status=success": [two],
        "status=completed": [two],
        "status=working,completed": [three, two],
        "status=running&status=pending": [three, one],
        "status=queued&project_id=p1&tag=red": [one],
        "status=": [three, two, one],
        "project_id=none": [],
    }
    for query, found in expected.items():
        response = await admin.get(f"/tasks?{query}")
        assert ids(response) == [task.task_id for task in found], query
        assert response.json()["data"]["total"] == len(found), query


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("nonsense=1", "nonsense"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=many", "limit"),
        ("limit=1&limit=2", "limit"),
        ("offset=-1", "offset"),
        ("offset=10001", "offset"),
        ("status=nonsense", "status"),
        ("type=nonsense", "type"),
        ("executor=nonsense", "executor"),
        ("priority=11", "priority"),
        ("priority=" + "9" * 5000, "priority"),
        ("cursor=nonsense", "cursor"),
        ("project_id[$ne]=x", "project_id[$ne]"),
        ("&".join(f"a{number}=1" for number in range(200)), ""),
    ],
)
async def test_a_wrong_query_is_refused_by_name(alice, query, field):
    response = await alice.get(f"/tasks?{query}")
    assert response.status_code == 422
    assert response.json()["error"]["details"]["field"] == field


async def test_odd_bytes_in_a_query_find_nothing_and_break_nothing(alice):
    for query in ("project_id=%ff", "tag=%00", "tag=%ed%a0%80", "project_id=%24where"):
        assert ids(await alice.get(f"/tasks?{query}")) == []


async def test_submitters_see_only_their_own_tasks(alice, bob, monitor, admin, stores):
    mine = await insert(stores, user_id="alice")
    other = await insert(stores, user_id="bob")
    assert ids(await alice.get("/tasks")) == [mine.task_id]
    assert (await alice.get("/tasks")).json()["data"]["total"] == 1
    assert ids(await bob.get("/tasks?user_id=bob")) == [other.task_id]
    assert (await alice.get("/tasks?user_id=bob")).status_code == 403
    for everything in (monitor, admin):
        assert ids(await everything.get("/tasks")) == [other.task_id, mine.task_id]
    assert (await alice.get(f"/tasks/{other.task_id}")).status_code == 404
    for suffix in ("/logs", "/events", "/logs?follow=true"):
        assert (await alice.get(f"/tasks/{other.task_id}{suffix}")).status_code == 404
    assert (await monitor.get(f"/tasks/{other.task_id}")).status_code == 200


@pytest.mark.parametrize("task_id", [UNKNOWN, "nonsense", "%00", "%ff", "%24gt", "a" * 3000, "..%2f..%2fetc"])
async def test_an_unknown_task_is_not_found(alice, task_id):
    for path in (f"/tasks/{task_id}", f"/tasks/{task_id}/logs", f"/tasks/{task_id}/events"):
        response = await alice.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND"), path


async def test_a_task_shows_its_attempts_error_and_usage_but_no_internals(alice, stores):
    now = utc_now()
    error = TaskError(class_="temporary", code="X", message="m", advice="a")
    attempt = Attempt(number=1, epoch=7, worker_id="w1", started_at=now, error=error, log_from=7_000, log_to=7_009)
    task = await insert(
        stores,
        state=State.RUNNING,
        worker_id="w1",
        epoch=7,
        lease_renewed_at=now,
        started_at=now,
        attempt=1,
        attempts=[attempt],
        error=error,
        usage=Usage(cost_usd=0.5),
        result={"nan": float("nan")},
    )
    data = (await alice.get(f"/tasks/{task.task_id}")).json()["data"]
    assert data["worker_id"] == "w1"
    assert data["error"] == {"class": "temporary", "code": "X", "message": "m", "advice": "a"}
    assert data["attempts"][0]["log_to"] == 7_009
    assert "epoch" not in data["attempts"][0]
    assert data["usage"]["cost_usd"] == 0.5
    assert not {"epoch", "lease_renewed_at", "loss_count", "due_at"} & set(data)


async def test_a_finished_task_has_a_duration_and_no_worker(alice, stores):
    now = utc_now()
    task = await insert(stores, state=State.SUCCESS, worker_id="w1", started_at=now, completed_at=now)
    data = (await alice.get(f"/tasks/{task.task_id}")).json()["data"]
    assert (data["worker_id"], data["duration"]) == (None, 0.0)


async def test_an_unchanged_task_is_not_sent_again(alice, stores):
    task = await insert(stores)
    etag = (await alice.get(f"/tasks/{task.task_id}")).headers["etag"]
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        same = await alice.get(f"/tasks/{task.task_id}", headers={"If-None-Match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    await finish(stores, task)
    changed = await alice.get(f"/tasks/{task.task_id}", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["data"]["status"]) == (200, "cancelled")


async def test_waiting_ends_when_the_task_does(alice, api, stores, settings):
    task = await insert(stores)
    waiting = asyncio.create_task(alice.get(f"/tasks/{task.task_id}?wait=20"))

    async def subscribers() -> int:
        return api.hub.subscribers

    await eventually(subscribers)
    await finish(stores, task)
    stores.notices.send(events_stream(settings.redis_prefix), TaskChanged(task_id=task.task_id))
    response = await asyncio.wait_for(waiting, timeout=5)
    assert response.json()["data"]["status"] == "cancelled"
    assert api.hub.subscribers == 0


async def test_waiting_notices_the_end_without_any_notice(alice, stores):
    task = await insert(stores)
    waiting = asyncio.create_task(alice.get(f"/tasks/{task.task_id}?wait=20"))
    await finish(stores, task)
    response = await asyncio.wait_for(waiting, timeout=8)
    assert response.json()["data"]["status"] == "cancelled"


async def test_waiting_ends_when_the_time_is_up(alice, stores):
    task = await insert(stores)
    started = time.monotonic()
    response = await alice.get(f"/tasks/{task.task_id}?wait=0.3")
    assert response.json()["data"]["status"] == "pending"
    assert 0.3 <= time.monotonic() - started < 5


@pytest.mark.parametrize("wait", ["61", "-1", "long", "nan", "inf"])
async def test_an_unreasonable_wait_is_refused(alice, stores, wait):
    task = await insert(stores)
    response = await alice.get(f"/tasks/{task.task_id}?wait={wait}")
    assert (response.status_code, response.json()["error"]["details"]["field"]) == (422, "wait")


async def test_a_client_that_leaves_while_it_waits_is_forgotten(alice, api, stores):
    task = await insert(stores)
    waiting = asyncio.create_task(alice.get(f"/tasks/{task.task_id}?wait=60"))

    async def subscribers() -> int:
        return api.hub.subscribers

    await eventually(subscribers)
    waiting.cancel()
    await eventually(subscribers, until=lambda count: count == 0)
