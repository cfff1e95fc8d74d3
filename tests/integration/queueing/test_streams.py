"""Notices over real Redis streams."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from codefleet.messages import Hint, SlotFreed, TaskChanged, TasksReady, WorkersChanged
from codefleet.queueing.streams import StreamWriter, control_stream, events_stream, read_stream, wake_stream
from codefleet.service import Stores
from codefleet.settings import Settings
from tests.support.waiting import eventually


@pytest.fixture
def stream(settings: Settings) -> str:
    return wake_stream(settings.redis_prefix)


@asynccontextmanager
async def reading(redis: Redis, stream: str, kind: Any = Hint) -> AsyncIterator[list[Any]]:
    """What a reader has read so far; it has its place in the stream when this is entered."""
    seen: list[Any] = []

    async def read() -> None:
        async for notice in read_stream(redis, stream, kind):
            seen.append(notice)  # noqa: PERF401 - one by one, to be seen meanwhile

    reader = asyncio.create_task(read())
    marker = SlotFreed(worker_id="marker", task_id="marker", epoch=1)

    async def in_place() -> bool:
        await redis.xadd(stream, {b"n": b'{"type":"slot_freed","worker_id":"marker","task_id":"marker","epoch":1}'})
        return marker in seen

    if kind is Hint:
        await eventually(in_place)
        await asyncio.sleep(0)
    try:
        yield seen
    finally:
        reader.cancel()
        await asyncio.wait({reader})


def real(seen: list[Any]) -> list[Any]:
    return [notice for notice in seen if not (isinstance(notice, SlotFreed) and notice.worker_id == "marker")]


async def arrive(seen: list[Any], wanted: list[Any]) -> None:
    async def read() -> list[Any]:
        return real(seen)

    await eventually(read, until=lambda found: found == wanted, seconds=5)


async def test_notices_are_read_in_the_order_in_which_they_were_sent(stores: Stores, stream: str):
    async with reading(stores.redis, stream) as seen:
        wanted: list[Any] = []
        for number in range(50):
            wanted += [SlotFreed(worker_id="w", task_id=f"{number}", epoch=1), TasksReady()]
            stores.notices.send(stream, wanted[-2])
            stores.notices.send(stream, wanted[-1])
            await stores.notices.close()
        await arrive(seen, wanted)


async def test_every_reader_sees_every_notice(stores: Stores, stream: str):
    async with reading(stores.redis, stream) as one, reading(stores.redis, stream) as other:
        stores.notices.send(stream, WorkersChanged())
        await arrive(one, [WorkersChanged()])
        await arrive(other, [WorkersChanged()])


async def test_a_reader_does_not_see_what_came_before_it(stores: Stores, stream: str):
    stores.notices.send(stream, WorkersChanged())
    await stores.notices.close()
    async with reading(stores.redis, stream) as seen:
        stores.notices.send(stream, TasksReady())
        await arrive(seen, [TasksReady()])


@pytest.mark.parametrize(
    "fields",
    [
        {b"n": b"garbage"},
        {b"n": b""},
        {b"n": b"\xff\x00"},
        {b"n": b'{"type":"from_the_future"}'},
        {b"other": b"field"},
        {b"n": b"[" * 100_000},
    ],
    ids=["garbage", "empty", "bytes", "unknown", "no field", "deep"],
)
async def test_a_notice_that_is_not_understood_is_passed_over(stores: Stores, stream: str, fields: dict[bytes, bytes]):
    async with reading(stores.redis, stream) as seen:
        await stores.redis.xadd(stream, fields)
        stores.notices.send(stream, TasksReady())
        await arrive(seen, [TasksReady()])


async def test_a_reader_survives_the_loss_of_its_stream(stores: Stores, stream: str):
    async with reading(stores.redis, stream) as seen:
        stores.notices.send(stream, WorkersChanged())
        await arrive(seen, [WorkersChanged()])
        await stores.redis.delete(stream)

        async def sent_again() -> bool:
            # Within the millisecond of the stream's end a new one may repeat its ids.
            stores.notices.send(stream, TasksReady())
            return TasksReady() in seen

        await eventually(sent_again, seconds=5)


async def test_equal_notices_that_wait_are_sent_once(stores: Stores, stream: str, settings: Settings):
    events = events_stream(settings.redis_prefix)
    for _ in range(100):
        stores.notices.send(stream, TasksReady())
        stores.notices.send(events, TaskChanged(task_id="a"))
        stores.notices.send(events, TaskChanged(task_id="b"))
    await stores.notices.close()
    assert await stores.redis.xlen(stream) == 1
    assert await stores.redis.xlen(events) == 2


async def test_streams_expire_by_themselves(stores: Stores, settings: Settings):
    control = control_stream(settings.redis_prefix, "w")
    stores.notices.send(control, TasksReady())
    await stores.notices.close()
    assert 0 < await stores.redis.ttl(control) <= 24 * 3600


async def test_sending_goes_on_after_redis_was_away(stores: Stores, stream: str):
    pool = BlockingConnectionPool.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.2)
    nowhere = Redis(connection_pool=pool)
    writer = StreamWriter(nowhere)
    writer.send(stream, TasksReady())
    await writer.close()  # dropped, and nobody was stopped by it
    writer._redis = stores.redis
    writer.send(stream, WorkersChanged())
    await writer.close()
    await writer.close()
    assert await stores.redis.xlen(stream) == 1
    await nowhere.aclose()


async def test_a_reader_goes_on_after_redis_was_away(stores: Stores, stream: str):
    class Flaky:
        """Refuses every second call."""

        calls = 0

        def __getattr__(self, name: str) -> Any:
            self.calls += 1
            if self.calls % 2:
                raise ConnectionError("away")
            return getattr(stores.redis, name)

    async with reading(stores.redis, stream) as before:
        stores.notices.send(stream, WorkersChanged())
        await arrive(before, [WorkersChanged()])
    seen: list[Any] = []

    async def read() -> None:
        async for notice in read_stream(Flaky(), stream, Hint):  # type: ignore[arg-type]
            seen.append(notice)  # noqa: PERF401 - one by one, to be seen meanwhile

    reader = asyncio.create_task(read())

    async def sent() -> bool:
        stores.notices.send(stream, TasksReady())
        return TasksReady() in seen

    await eventually(sent)
    reader.cancel()
    await asyncio.wait({reader})
