"""GET /tasks/{id}/events."""

import asyncio

import httpx
import pytest

from codefleet.clock import utc_now
from codefleet.domain.states import State
from codefleet.domain.tasks import Task, TaskProgress
from codefleet.domain.transitions import Transition
from codefleet.messages import TaskChanged
from codefleet.queueing.streams import events_stream
from codefleet.service import Stores
from codefleet.settings import Settings
from services.api import hub, streaming
from services.api.lifespan import close_streams
from tests.integration.api.sse import Event, all_events, events
from tests.support.tasks import make_task
from tests.support.waiting import eventually


async def move(stores: Stores, task: Task, *path: State, **fields: object) -> None:
    made = Transition(
        task_id=task.task_id,
        path=path,
        cause="test",
        actor="worker:w1",
        attempt=1,
        fields={"worker_id": "w1", "epoch": 1, "lease_renewed_at": utc_now(), **fields},
    )
    assert await stores.tasks.apply(made)


async def submitted(client: httpx.AsyncClient, stores: Stores) -> Task:
    response = await client.post("/tasks", json={"type": "diagnostic"})
    task = await stores.tasks.get(response.json()["data"]["task_id"])
    assert task is not None
    return task


def notify(stores: Stores, settings: Settings, task: Task) -> None:
    stores.notices.send(events_stream(settings.redis_prefix), TaskChanged(task_id=task.task_id))


async def ended(client: httpx.AsyncClient, stores: Stores) -> Task:
    task = await submitted(client, stores)
    await move(stores, task, State.PENDING, State.RECEIVED, State.STARTED, State.RUNNING)
    await move(stores, task, State.RUNNING, State.SUCCESS)
    return task


async def test_the_whole_life_of_a_task_is_told_in_order(alice, stores, settings):
    task = await submitted(alice, stores)
    told: list[Event] = []

    async def follow() -> None:
        told.extend(await all_events(alice, f"/tasks/{task.task_id}/events"))

    following = asyncio.create_task(follow())
    await move(stores, task, State.PENDING, State.RECEIVED, State.STARTED, State.RUNNING)
    await stores.tasks.set_progress(task.task_id, 1, TaskProgress(percentage=50.0, current_step="half"))
    notify(stores, settings, task)
    await asyncio.sleep(0)
    await move(stores, task, State.RUNNING, State.SUCCESS)
    notify(stores, settings, task)
    await asyncio.wait_for(following, timeout=10)
    states = [event for event in told if event.name == "state"]
    assert [event.data["status"] for event in states] == ["pending", "received", "started", "running", "success"]
    assert [event.id for event in states] == ["0", "1", "2", "3", "4"]
    assert (states[1].data["from"], states[1].data["to"], states[1].data["actor"]) == (
        "pending",
        "received",
        "worker:w1",
    )
    assert any(event.name == "progress" and event.data["percentage"] == 50.0 for event in told)
    assert (told[-1].name, told[-1].data) == ("end", {"status": "success"})


async def test_a_resumed_stream_goes_on_exactly_where_it_stopped(alice, stores):
    task = await ended(alice, stores)
    whole = await all_events(alice, f"/tasks/{task.task_id}/events")
    for seen in range(5):
        rest = await all_events(alice, f"/tasks/{task.task_id}/events", last_event_id=str(seen))
        assert rest == whole[seen + 1 :]


async def test_a_position_beyond_the_end_tells_only_the_end(alice, stores):
    task = await ended(alice, stores)
    assert [event.name for event in await all_events(alice, f"/tasks/{task.task_id}/events", last_event_id="999")] == [
        "end",
    ]


@pytest.mark.parametrize("position", ["abc", "-1", "1.5", "9" * 30, "", "1 2", "٣".encode()])
async def test_a_position_that_is_no_number_is_refused(alice, stores, position):
    task = await submitted(alice, stores)
    for path in ("events", "logs?follow=true"):
        response = await alice.get(f"/tasks/{task.task_id}/{path}", headers={"Last-Event-ID": position})
        assert (response.status_code, response.json()["error"]["details"]["field"]) == (422, "Last-Event-ID")


async def test_a_stream_is_not_deaf_without_notices(alice, stores):
    task = await submitted(alice, stores)
    async with alice.stream("GET", f"/tasks/{task.task_id}/events") as response:
        told = events(response)
        assert (await anext(told)).data["status"] == "pending"
        await move(stores, task, State.PENDING, State.CANCELLED)
        assert (await asyncio.wait_for(anext(told), timeout=8)).data["status"] == "cancelled"


async def test_a_quiet_stream_is_kept_alive_by_comments(alice, stores, monkeypatch):
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.0)
    task = await submitted(alice, stores)
    async with alice.stream("GET", f"/tasks/{task.task_id}/events") as response:
        async for line in response.aiter_lines():
            if line == ": keep-alive":
                return
    pytest.fail("the stream ended without a comment")


async def test_a_client_that_leaves_is_forgotten(alice, api, stores):
    task = await submitted(alice, stores)

    async def subscribers() -> int:
        return api.hub.subscribers

    for path in ("events", "logs?follow=true"):
        async with alice.stream("GET", f"/tasks/{task.task_id}/{path}"):
            await eventually(subscribers, until=lambda count: count == 1)
        await eventually(subscribers, until=lambda count: count == 0)
    assert api.hub._subscriptions == {}


async def test_there_is_a_bound_on_open_streams(alice, api, stores, monkeypatch):
    monkeypatch.setattr(hub, "MAX_SUBSCRIBERS", 1)
    task = await submitted(alice, stores)
    with api.hub.subscribed(task.task_id):
        for path in ("events", "logs?follow=true"):
            response = await alice.get(f"/tasks/{task.task_id}/{path}")
            assert (response.status_code, response.json()["error"]["code"]) == (503, "UNAVAILABLE")
            assert response.headers["retry-after"]


async def test_a_key_that_is_revoked_ends_its_streams(alice, api, stores):
    task = await submitted(alice, stores)
    async with alice.stream("GET", f"/tasks/{task.task_id}/events") as response:
        told = events(response)
        await anext(told)
        await stores.mongo.collection("api_keys").delete_many({})
        api.authenticator._known.clear()
        assert [event async for event in told] == []


async def test_streams_end_when_the_process_closes(alice, api, stores):
    task = await submitted(alice, stores)
    async with alice.stream("GET", f"/tasks/{task.task_id}/events") as response:
        told = events(response)
        await anext(told)
        close_streams(api)
        assert [event async for event in told] == []


async def test_many_subscribers_of_one_task_are_all_told(alice, api, stores, settings):
    task = await submitted(alice, stores)
    following = [asyncio.create_task(all_events(alice, f"/tasks/{task.task_id}/events")) for _ in range(50)]

    async def subscribers() -> int:
        return api.hub.subscribers

    await eventually(subscribers, until=lambda count: count == 50)
    await move(stores, task, State.PENDING, State.CANCELLED)
    notify(stores, settings, task)
    for told in await asyncio.gather(*following):
        assert [event.name for event in told] == ["state", "state", "end"]


async def test_unknown_query_parameters_are_refused(alice, stores):
    task = make_task(user_id="alice")
    await stores.tasks.insert(task)
    for path in ("events?after=1", "logs?from=1", "logs?after=x", "logs?limit=0", "logs?follow=maybe"):
        assert (await alice.get(f"/tasks/{task.task_id}/{path}")).status_code == 422, path
