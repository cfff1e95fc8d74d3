"""Many small writes as few large ones, each caller answered when its own write is durable."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from codefleet.errors import UnavailableError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class GroupCommit(Generic[Item, Answer]):
    """Gathers what is submitted while earlier batches are under way and commits it together.

    `commit` gets a batch and returns one answer or exception for each item, in order. If it raises UnavailableError,
    that is the answer of the whole batch; after any other exception each item is committed alone, so that one that
    cannot be committed spoils nobody else's. A lone item is committed at once: grouping costs no waiting.

    Args:
        max_items: the largest batch.
        max_batches: how many batches may be under way at the same time.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        max_items: int = 256,
        max_batches: int = 2,
    ) -> None:
        self._commit = commit
        self._max_items = max_items
        self._max_batches = max_batches
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def submit(self, item: Item) -> Answer:
        """The answer for `item` once its batch is durable; raises what `commit` said of it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if not self._scheduled:
            self._scheduled = True
            # The rest of this turn of the loop joins the same batch.
            loop.call_soon(self._start_batches)
        return await future

    def _start_batches(self) -> None:
        self._scheduled = False
        # Who has given up waiting was answered that nothing happened, or may happen: let it be nothing.
        self._waiting = [(item, future) for item, future in self._waiting if not future.done()]
        while self._waiting and len(self._batches) < self._max_batches:
            batch, self._waiting = self._waiting[: self._max_items], self._waiting[self._max_items :]
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._batches.add(task)
            task.add_done_callback(self._batch_done)

    def _batch_done(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._start_batches()

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        answers = await self._answers([item for item, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():  # the caller gave up waiting
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _answers(self, items: Sequence[Item]) -> Sequence[Answer | Exception]:
        try:
            answers = await self._commit(items)
            if len(answers) != len(items):
                raise RuntimeError(  # noqa: TRY301 - it is everybody's answer like any other
                    f"expected {len(items)} answers, got {len(answers)}",
                )
            return answers
        except UnavailableError as error:
            return [error] * len(items)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is somebody's answer
            if len(items) == 1:
                return [error]
            return [answer for item in items for answer in await self._answers([item])]
