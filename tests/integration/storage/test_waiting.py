"""What waits, in a real MongoDB: due, ready, and since when; each by an index that holds nothing else."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from codefleet.clock import first_id_at, in_seconds, utc_now
from codefleet.domain.queues import QUEUE_OF, Executor, Queue
from codefleet.domain.states import State
from codefleet.domain.tasks import Task
from codefleet.service import Stores
from codefleet.storage.tasks import TaskFilter, TaskRepository, Waiting
from tests.support.tasks import make_task


@pytest.fixture
def tasks(stores: Stores) -> TaskRepository:
    return stores.tasks


async def stored(tasks: TaskRepository, **fields: Any) -> Task:
    task = make_task(**fields)
    await tasks.insert(task)
    return task


async def spoil(stores: Stores, task: Task) -> None:
    """Makes a document that no version of ours has written."""
    await stores.mongo.collection("tasks").update_one({"_id": task.task_id}, {"$set": {"effective_priority": "high"}})


async def profiled(stores: Stores, query: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The answer of a query, and what the server says of how it was found."""
    await stores.mongo.database.command("profile", 2)
    answer = await query
    await stores.mongo.database.command("profile", 0)
    profile = stores.mongo.collection("system.profile")
    ran = await profile.find({"ns": {"$regex": "[.]tasks$"}}).to_list(None)
    await profile.drop()
    return answer, ran


def ids(tasks: list[Waiting]) -> list[str]:
    return [task.task_id for task in tasks]


# Due


async def test_what_is_due_comes_in_the_order_of_its_time(tasks: TaskRepository):
    late = await stored(tasks, due_at=in_seconds(-10), executor=Executor.CLAUDE)
    later = await stored(tasks, due_at=in_seconds(-20), state=State.RETRY)
    future = await stored(tasks, due_at=in_seconds(60))
    await stored(tasks)
    await stored(tasks, due_at=in_seconds(-5), state=State.CANCELLED)
    now = utc_now()
    assert ids(await tasks.due(now, 10)) == [later.task_id, late.task_id]
    assert ids(await tasks.due(now, 1)) == [later.task_id]
    assert ids(await tasks.due(in_seconds(120), 10)) == [later.task_id, late.task_id, future.task_id]
    await tasks.clear_due([late.task_id], now)
    assert ids(await tasks.due(now, 10)) == [later.task_id]


async def test_the_due_time_of_what_does_not_wait_any_more_is_left(tasks: TaskRepository):
    task = await stored(tasks, due_at=in_seconds(-5), state=State.CANCELLED)
    await tasks.clear_due([task.task_id], utc_now())
    assert await tasks.get(task.task_id) == task


async def test_a_back_off_that_began_after_the_read_is_left(tasks: TaskRepository):
    task = await stored(tasks, due_at=in_seconds(60), state=State.RETRY)
    await tasks.clear_due([task.task_id], utc_now())
    assert await tasks.get(task.task_id) == task


# Ready


async def test_ready_tasks_are_paged_completely_and_in_order(tasks: TaskRepository):
    executors = [*Executor]
    ready = [
        await stored(
            tasks, state=State.RETRY if index % 2 else State.PENDING, executor=executors[index % len(executors)]
        )
        for index in range(24)
    ]
    for state in frozenset(State) - {State.PENDING, State.RETRY}:
        await stored(tasks, state=state)
    await stored(tasks, due_at=in_seconds(60))
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await tasks.ready_after(after, "g", 4)
        assert len(page.tasks) <= 4
        seen += ids(page.tasks)
        after = page.next_after
    assert seen == [task.task_id for task in ready]
    inner = await tasks.ready_after(ready[3].task_id, ready[8].task_id, 100)
    assert ids(inner.tasks) == [task.task_id for task in ready[4:8]]
    assert inner.next_after is None
    assert (await tasks.ready_after("", first_id_at(in_seconds(-60)), 100)).tasks == []


async def test_a_document_that_cannot_be_read_does_not_end_the_paging_and_is_told_of_once(
    stores: Stores, tasks: TaskRepository
):
    ready = [await stored(tasks) for _ in range(5)]
    await spoil(stores, ready[1])
    with capture_logs() as logged:
        for _ in range(3):
            page = await tasks.ready_after("", "g", 2)
            assert (ids(page.tasks), page.next_after) == ([ready[0].task_id], ready[1].task_id)
    assert [line["id"] for line in logged] == [ready[1].task_id]
    assert ids((await tasks.ready_after(ready[1].task_id, "g", 9)).tasks) == [task.task_id for task in ready[2:]]


# Since when


async def test_nothing_waits_where_nothing_could_start(tasks: TaskRepository):
    await stored(tasks, due_at=in_seconds(60))
    await stored(tasks, executor=Executor.CLAUDE)
    await stored(tasks, state=State.RUNNING)
    assert await tasks.waiting_since(Queue.DEFAULT) is None


async def test_a_task_waits_from_when_it_could_first_start(tasks: TaskRepository):
    for executor, fields in (
        (Executor.CLAUDE, {"created_at": in_seconds(-50), "scheduled_at": in_seconds(-7)}),
        (Executor.CURSOR, {"created_at": in_seconds(-50), "state": State.RETRY, "updated_at": in_seconds(-7)}),
        (Executor.ANY, {"created_at": in_seconds(-50), "state": State.RETRY, "due_at": in_seconds(-7)}),
    ):
        task = await stored(tasks, executor=executor, **fields)
        expected = task.due_at or task.scheduled_at or task.updated_at
        assert await tasks.waiting_since(QUEUE_OF[executor]) == expected


async def test_who_has_waited_longest_need_not_be_the_oldest(tasks: TaskRepository, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("codefleet.storage.task_reads._LONGEST_WAIT_BATCH", 3)
    for _ in range(7):
        await stored(tasks, created_at=in_seconds(-900), state=State.RETRY, updated_at=in_seconds(-5))
    await stored(tasks, created_at=in_seconds(-800), scheduled_at=in_seconds(-10), due_at=in_seconds(-10))
    longest = await stored(tasks, created_at=in_seconds(-60))
    await stored(tasks, created_at=in_seconds(-30))
    assert await tasks.waiting_since(Queue.DEFAULT) == longest.created_at


# Indexes


async def test_reads_of_what_waits_examine_what_they_return(stores: Stores, tasks: TaskRepository):
    await asyncio.gather(*(stored(tasks, due_at=in_seconds(500)) for _ in range(200)))
    await asyncio.gather(*(stored(tasks, state=State.SUCCESS, due_at=in_seconds(-5)) for _ in range(200)))
    await asyncio.gather(*(stored(tasks, executor=Executor.CLAUDE) for _ in range(200)))
    await asyncio.gather(*(stored(tasks, due_at=in_seconds(-5), prompt="x" * 10_000) for _ in range(5)))
    for name, query in {
        "due": tasks.due(utc_now(), 5),
        "ready": tasks.ready_after("", "g", 20),
        "sweep": tasks.ready_after(first_id_at(in_seconds(-60)), "g", 1000),
        "waiting since, others' backlog": tasks.waiting_since(Queue.CURSOR_EXECUTION),
        "waiting since, own backlog": tasks.waiting_since(Queue.CLAUDE_EXECUTION),
        "waiting since, due": tasks.waiting_since(Queue.DEFAULT),
    }.items():
        _, ran = await profiled(stores, query)
        assert ran, name
        for one in ran:
            assert "IXSCAN" in one["planSummary"], name
            assert one["docsExamined"] == one["nreturned"], name
            assert not one.get("hasSortStage"), name
            assert one["responseLength"] < 1000 + 400 * one["nreturned"], name


async def test_tasks_are_counted_without_reading_them(stores: Stores, tasks: TaskRepository):
    for state in (State.SUCCESS, State.PENDING):
        await asyncio.gather(*(stored(tasks, state=state) for _ in range(50)))
    await asyncio.gather(*(stored(tasks, tags=["a", "b"]) for _ in range(5)))
    counts, ran = await profiled(stores, tasks.count_by_state())
    assert counts == dict.fromkeys(State, 0) | {State.SUCCESS: 50, State.PENDING: 55}
    assert [(one["docsExamined"], one["keysExamined"]) for one in ran] == [(0, 105)]
    count, ran = await profiled(stores, tasks.count(TaskFilter(tag="a")))
    assert count == 5
    assert [one["docsExamined"] <= 5 for one in ran] == [True]
