import asyncio
from collections.abc import Sequence

from codefleet.errors import UnavailableError
from codefleet.storage.group_commit import GroupCommit


class Store:
    """Keeps what is committed, at once or when it is let."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.under_way = self.most_under_way = 0
        self.go_on = asyncio.Event()
        if not held:
            self.go_on.set()

    async def commit(self, batch: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(batch))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.go_on.wait()
        self.under_way -= 1
        return [ValueError(f"{item} is odd") if item % 2 else item * 10 for item in batch]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_comes_in_one_turn_is_one_batch_in_order():
    store = Store()
    group = GroupCommit(store.commit)
    assert await asyncio.gather(*(group.submit(item) for item in range(0, 100, 2))) == list(range(0, 1000, 20))
    assert store.batches == [list(range(0, 100, 2))]


async def test_a_lone_item_does_not_wait():
    store = Store()
    group = GroupCommit(store.commit)
    assert await asyncio.wait_for(group.submit(4), 1) == 40
    assert await asyncio.wait_for(group.submit(6), 1) == 60
    assert store.batches == [[4], [6]]


async def test_what_comes_while_batches_are_under_way_goes_together():
    store = Store(held=True)
    group = GroupCommit(store.commit, max_batches=2)
    waiting = []
    for item in range(0, 20, 2):
        waiting.append(asyncio.ensure_future(group.submit(item)))
        await turns()
    assert store.batches == [[0], [2]]
    store.go_on.set()
    assert await asyncio.gather(*waiting) == list(range(0, 200, 20))
    assert store.batches == [[0], [2], list(range(4, 20, 2))]


async def test_no_batch_is_larger_and_no_more_are_under_way_than_allowed():
    store = Store(held=True)
    group = GroupCommit(store.commit, max_items=3, max_batches=2)
    waiting = [asyncio.ensure_future(group.submit(item)) for item in range(0, 20, 2)]
    await turns()
    assert store.batches == [[0, 2, 4], [6, 8, 10]]
    store.go_on.set()
    assert await asyncio.gather(*waiting) == list(range(0, 200, 20))
    assert max(map(len, store.batches)) == 3
    assert store.most_under_way == 2
    assert [item for batch in store.batches for item in batch] == list(range(0, 20, 2))


async def test_each_caller_gets_the_error_of_its_own_item():
    group = GroupCommit(Store().commit)
    answers = await asyncio.gather(*(group.submit(item) for item in range(4)), return_exceptions=True)
    assert answers[0] == 0
    assert answers[2] == 20
    assert [str(answers[index]) for index in (1, 3)] == ["1 is odd", "3 is odd"]


async def test_a_store_that_is_away_is_every_callers_answer_and_the_next_batch_works():
    store = Store()
    attempts: list[int] = []
    broken = True

    async def commit(batch: Sequence[int]) -> Sequence[int | Exception]:
        if broken:
            attempts.append(len(batch))
            raise UnavailableError("away")
        return await store.commit(batch)

    group = GroupCommit(commit)
    answers = await asyncio.gather(*(group.submit(item) for item in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [UnavailableError] * 3
    assert attempts == [3]
    broken = False
    assert await group.submit(2) == 20


async def test_an_item_that_breaks_its_batch_breaks_only_itself():
    async def commit(batch: Sequence[int]) -> Sequence[int | Exception]:
        if 3 in batch:
            raise OverflowError("3 cannot be encoded")
        return [item * 10 for item in batch]

    group = GroupCommit(commit)
    answers = await asyncio.gather(*(group.submit(item) for item in range(5)), return_exceptions=True)
    assert isinstance(answers.pop(3), OverflowError)
    assert answers == [0, 10, 20, 40]


async def test_a_caller_that_gives_up_disturbs_nobody_and_its_item_is_committed():
    store = Store(held=True)
    group = GroupCommit(store.commit)
    staying, leaving, failing = (asyncio.ensure_future(group.submit(item)) for item in (2, 4, 5))
    await turns()
    leaving.cancel()
    failing.cancel()
    await turns()
    store.go_on.set()
    assert await staying == 20
    assert leaving.cancelled()
    assert failing.cancelled()
    assert store.batches == [[2, 4, 5]]


async def test_too_few_answers_are_an_error_and_leave_nobody_waiting():
    async def commit(batch: Sequence[int]) -> Sequence[int | Exception]:
        return batch[:-1]

    group = GroupCommit(commit)
    async with asyncio.timeout(2):
        answers = await asyncio.gather(*(group.submit(item) for item in range(3)), return_exceptions=True)
    assert all(isinstance(answer, Exception) for answer in answers)
