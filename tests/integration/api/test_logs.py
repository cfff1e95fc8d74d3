"""GET /tasks/{id}/logs."""

import asyncio

import pytest

from codefleet.clock import utc_now
from codefleet.domain.states import State
from codefleet.domain.tasks import Task
from codefleet.domain.transitions import Transition
from codefleet.messages import TaskChanged
from codefleet.queueing.streams import events_stream
from codefleet.service import Stores
from codefleet.storage.logs import LogChunk, LogLine, first_line_of
from tests.integration.api.sse import all_events, events
from tests.support.tasks import make_task


@pytest.fixture
async def task(stores: Stores) -> Task:
    task = make_task(user_id="alice", state=State.RUNNING, worker_id="w1", epoch=1)
    await stores.tasks.insert(task)
    return task


async def write(stores: Stores, task: Task, *texts: str, epoch: int = 1, place: int = 0) -> None:
    lines = [LogLine(stream="stdout", text=text, at=utc_now()) for text in texts]
    first = first_line_of(epoch) + place
    await stores.logs.append(
        LogChunk(task_id=task.task_id, attempt=epoch, epoch=epoch, first_line=first, lines=lines),
    )


async def end(stores: Stores, task: Task) -> None:
    move = Transition(
        task_id=task.task_id,
        path=(State.RUNNING, State.SUCCESS),
        cause="test",
        actor="test",
        attempt=1,
    )
    assert await stores.tasks.apply(move)


async def test_a_log_is_read_page_by_page(alice, stores, task):
    await write(stores, task, *(f"line {number}" for number in range(5)))
    await write(stores, task, "second attempt", epoch=2)
    after, seen = -1, []
    while True:
        page = (await alice.get(f"/tasks/{task.task_id}/logs", params={"after": after, "limit": 2})).json()["data"]
        seen += page["items"]
        after = page["next_after"]
        if not page["has_more"]:
            break
    assert [entry["text"] for entry in seen] == [*(f"line {number}" for number in range(5)), "second attempt"]
    assert [entry["attempt"] for entry in seen] == [1, 1, 1, 1, 1, 2]
    assert set(seen[0]) == {"line", "attempt", "stream", "text", "at"}
    rest = (await alice.get(f"/tasks/{task.task_id}/logs", params={"after": after})).json()["data"]
    assert rest == {"items": [], "next_after": after, "has_more": False}


async def test_a_followed_log_tells_every_line_and_then_the_end(alice, stores, settings, task):
    await write(stores, task, "before")
    async with alice.stream("GET", f"/tasks/{task.task_id}/logs?follow=true") as response:
        told = events(response)
        first = await anext(told)
        assert (first.name, first.data["text"], first.id) == ("log", "before", str(first_line_of(1)))
        await write(stores, task, "after", place=1)
        stores.notices.send(events_stream(settings.redis_prefix), TaskChanged(task_id=task.task_id))
        assert (await asyncio.wait_for(anext(told), timeout=5)).data["text"] == "after"
        await write(stores, task, "last", place=2)
        await end(stores, task)
        rest = [event async for event in told]
    assert [(event.name, event.data.get("text")) for event in rest] == [("log", "last"), ("end", None)]
    assert rest[-1].data == {"status": "success"}


async def test_a_followed_log_resumes_after_the_last_line_that_was_seen(alice, stores, task):
    await write(stores, task, "one", "two", "three")
    await end(stores, task)
    path, first = f"/tasks/{task.task_id}/logs?follow=true", first_line_of(1)
    by_header = await all_events(alice, path, last_event_id=str(first))
    by_query = await all_events(alice, f"{path}&after={first}")
    both = await all_events(alice, f"{path}&after=0", last_event_id=str(first + 1))
    assert [event.data.get("text") for event in by_header] == ["two", "three", None]
    assert by_query == by_header
    assert [event.data.get("text") for event in both] == ["three", None]


async def test_a_long_log_is_told_whole(alice, stores, task):
    for start in range(0, 3000, 500):
        await write(stores, task, *(str(number) for number in range(start, start + 500)), place=start)
    await end(stores, task)
    told = await all_events(alice, f"/tasks/{task.task_id}/logs?follow=true")
    assert [event.data["text"] for event in told[:-1]] == [str(number) for number in range(3000)]


async def test_a_log_as_text_is_its_lines(alice, stores, task):
    await write(stores, task, "one", "zwei ü", "")
    for query in ("", "?limit=10"):
        response = await alice.get(f"/tasks/{task.task_id}/logs{query}", headers={"Accept": "text/plain"})
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.text == "one\nzwei ü\n\n"
    limited = await alice.get(f"/tasks/{task.task_id}/logs?limit=1", headers={"Accept": "text/plain"})
    assert limited.text == "one\n"


async def test_a_followed_log_as_text_ends_with_the_task(alice, stores, task):
    await write(stores, task, "one")
    path = f"/tasks/{task.task_id}/logs?follow=true"
    async with alice.stream("GET", path, headers={"Accept": "text/plain"}) as response:
        lines = response.aiter_lines()
        assert await anext(lines) == "one"
        await write(stores, task, "two", place=1)
        await end(stores, task)
        assert [line async for line in lines] == ["two"]


async def test_control_characters_cannot_act_on_a_terminal(alice, stores, task):
    await write(stores, task, "\x1b[2Jgone\r\x07\ttab\x9b1m")
    response = await alice.get(f"/tasks/{task.task_id}/logs", headers={"Accept": "text/plain"})
    assert response.text == "␛[2Jgone␍␇\ttab\ufffd1m\n"
