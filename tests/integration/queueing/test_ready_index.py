"""The ready index in a real Redis."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from codefleet.clock import in_seconds
from codefleet.domain.queues import Executor, Queue
from codefleet.queueing.ready_index import Entry, ReadyIndex, entry_of
from codefleet.service import Stores
from codefleet.settings import Settings
from tests.support.tasks import make_task


@pytest.fixture
def ready(stores: Stores) -> ReadyIndex:
    return stores.ready


def entry(task_id: str, score: float, *, queue: Queue = Queue.DEFAULT, project_id: str = "p") -> Entry:
    return Entry(task_id=task_id, queue=queue, project_id=project_id, score=score)


async def take(ready: ReadyIndex, count: int, *queues: Queue, now: int = 1000) -> list[str]:
    return await ready.take(queues or (Queue.DEFAULT,), count, now_milliseconds=now)


async def lose(redis: Redis, settings: Settings) -> None:
    """What a Redis that lost its data looks like to this test, and to nobody else."""
    keys = [key async for key in redis.scan_iter(f"{settings.redis_prefix}:*")]
    await redis.delete(*keys)


async def test_the_lowest_score_goes_first_across_projects_and_queues(ready: ReadyIndex):
    await ready.add(
        [
            entry("c", 3, project_id="one"),
            entry("a", 1, project_id="two"),
            entry("d", 4, project_id="two"),
            entry("b", 2, queue=Queue.CLAUDE_EXECUTION),
            entry("other", 0, queue=Queue.CURSOR_EXECUTION),
        ],
    )
    assert await take(ready, 3, Queue.CLAUDE_EXECUTION, Queue.DEFAULT) == ["a", "b", "c"]
    assert await take(ready, 10, Queue.CLAUDE_EXECUTION, Queue.DEFAULT) == ["d"]
    assert await take(ready, 10, Queue.CLAUDE_EXECUTION, Queue.DEFAULT) == []
    assert await take(ready, 10, Queue.CURSOR_EXECUTION) == ["other"]


async def test_equal_scores_go_by_id_also_across_projects(ready: ReadyIndex):
    await ready.add(entry(f"t{number}", -5.0, project_id=f"p{number % 3}") for number in (4, 2, 0, 5, 3, 1))
    assert await take(ready, 4) == ["t0", "t1", "t2", "t3"]
    assert await take(ready, 4) == ["t4", "t5"]


async def test_tasks_come_out_by_priority_then_by_age(ready: ReadyIndex):
    low, old, young, urgent = (make_task(effective_priority=priority) for priority in (1, 5, 5, 10))
    aged = make_task(effective_priority=1, created_at=in_seconds(-9 * 600 - 60))
    scheduled = make_task(effective_priority=10, created_at=in_seconds(-86_400), scheduled_at=in_seconds(60))
    await ready.add(entry_of(task) for task in (low, young, scheduled, urgent, aged, old))
    wanted = [aged, urgent, scheduled, old, young, low]
    assert await take(ready, 10) == [task.task_id for task in wanted]


async def test_a_task_added_again_keeps_one_place_with_its_latest_score(ready: ReadyIndex):
    await ready.add([entry("a", 1), entry("b", 2)])
    await ready.add([entry("a", 3)])
    assert await ready.depth(Queue.DEFAULT) == 2
    assert await take(ready, 10) == ["b", "a"]
    await ready.add([])


async def test_ten_takers_at_once_get_each_task_exactly_once(ready: ReadyIndex):
    tasks = {f"t{number:04}" for number in range(600)}
    await ready.add(entry(task, int(task[1:]) % 7, project_id=task[-1]) for task in tasks)

    async def work() -> list[str]:
        mine: list[str] = []
        while some := await take(ready, 7):
            mine += some
        return mine

    taken = [task for some in await asyncio.gather(*(work() for _ in range(10))) for task in some]
    assert len(taken) == len(tasks)
    assert set(taken) == tasks
    assert set(await ready.taken_before(1000)) == tasks


async def test_nothing_is_lost_between_adding_and_taking_at_once(ready: ReadyIndex):
    taken: list[str] = []

    async def add() -> None:
        for number in range(100):
            await ready.add([entry(f"t{number}", number, project_id=f"p{number % 2}")])

    adding = asyncio.create_task(add())
    while not adding.done():
        taken += await take(ready, 3)
    taken += await take(ready, 1000)
    assert sorted(taken) == sorted(f"t{number}" for number in range(100))


async def test_what_was_taken_is_known_until_it_is_accounted_for(ready: ReadyIndex):
    await ready.add([entry("a", 1), entry("b", 2), entry("c", 3)])
    assert await take(ready, 1, now=1000) == ["a"]
    assert await take(ready, 2, now=2000) == ["b", "c"]
    assert await ready.taken_before(999) == []
    assert await ready.taken_before(1000) == ["a"]
    await ready.forget_taken(["a", "b", "unknown"])
    await ready.forget_taken([])
    assert await ready.taken_before(9999) == ["c"]


async def test_missing_is_what_is_neither_indexed_nor_taken(ready: ReadyIndex):
    entries = [entry("indexed", 2), entry("taken", 1), entry("missing", 3), entry("indexed", 2, project_id="elsewhere")]
    await ready.add(entries[:2])
    assert await take(ready, 1) == ["taken"]
    assert await ready.missing(entries) == entries[2:]
    assert await ready.missing([]) == []


async def test_a_removed_task_is_not_taken(ready: ReadyIndex):
    one, other = make_task(), make_task()
    await ready.add([entry_of(one), entry_of(other)])
    await ready.remove(one)
    await ready.remove(one)
    assert await take(ready, 10) == [other.task_id]


async def test_depth_counts_each_queue_over_all_its_projects(ready: ReadyIndex):
    assert await ready.depth(Queue.DEFAULT) == 0
    await ready.add(entry(f"t{number}", 1, project_id=f"p{number % 3}") for number in range(10))
    await ready.add([entry("x", 1, queue=Queue.CLAUDE_EXECUTION)])
    assert await ready.depth(Queue.DEFAULT) == 10
    await take(ready, 4)
    assert await ready.depth(Queue.DEFAULT) == 6
    assert await ready.depth(Queue.CLAUDE_EXECUTION) == 1


async def test_projects_that_wait_for_nothing_are_not_kept(stores: Stores, settings: Settings, ready: ReadyIndex):
    await ready.add(entry(f"t{number}", 1, project_id=f"p{number}") for number in range(20))
    await take(ready, 100)
    await take(ready, 1)
    assert [key async for key in stores.redis.scan_iter(f"{settings.redis_prefix}:ready:*")] == []


async def test_the_index_knows_that_it_lost_its_data(stores: Stores, settings: Settings, ready: ReadyIndex):
    assert not await ready.is_whole()
    await ready.begin_rebuild()
    await lose(stores.redis, settings)
    assert not await ready.end_rebuild(), "what was lost in the middle of a rebuild is not whole"
    await ready.add([entry("a", 1)])
    await ready.begin_rebuild()
    assert await ready.end_rebuild()
    assert await ready.is_whole()
    await lose(stores.redis, settings)
    assert not await ready.is_whole()
    assert await ready.depth(Queue.DEFAULT) == 0
    assert await take(ready, 1) == []


async def test_two_deployments_on_one_redis_do_not_meet(stores: Stores, ready: ReadyIndex):
    other = ReadyIndex(stores.redis, "another-deployment")
    await ready.add([entry("a", 1)])
    assert await take(other, 10) == []
    assert not await other.is_whole()


@pytest.mark.parametrize("project_id", ["", "a:b", "p\n", "naïve 🦊", "{x}", "*", "x" * 1000])
async def test_any_project_name_works(ready: ReadyIndex, project_id: str):
    await ready.add([entry("a", 1, project_id=project_id)])
    assert await ready.depth(Queue.DEFAULT) == 1
    assert await take(ready, 1) == ["a"]


async def test_the_script_survives_a_redis_that_forgot_it(stores: Stores, ready: ReadyIndex):
    await ready.add([entry("a", 1), entry("b", 2)])
    assert await take(ready, 1) == ["a"]
    forgotten: Any = await stores.redis.script_flush()
    assert forgotten
    assert await take(ready, 1) == ["b"]


def test_a_task_waits_in_the_queue_of_its_executor():
    placed = entry_of(make_task(executor=Executor.CURSOR, project_id="x"))
    assert (placed.queue, placed.project_id) == (Queue.CURSOR_EXECUTION, "x")
