"""A run's log on its way to the store: the cap, back-pressure, a store that is away, giving up."""

import asyncio
from collections.abc import Sequence

import pytest

from codefleet.errors import UnavailableError
from codefleet.execution import task_log
from codefleet.execution.task_log import TaskLog
from codefleet.service import Stores
from codefleet.storage.logs import LogChunk, first_line_of
from tests.support.waiting import eventually


class Store:
    """Keeps chunks in memory; away or slow when the test says so."""

    def __init__(self) -> None:
        self.chunks: list[LogChunk] = []
        self.away = False
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, chunk: LogChunk) -> None:
        await self.open.wait()
        if self.away:
            raise UnavailableError("away")
        if self.error is not None:
            raise self.error
        self.chunks.append(chunk)

    @property
    def texts(self) -> list[str]:
        return [line.text for chunk in self.chunks for line in chunk.lines]


@pytest.fixture
async def store() -> Store:
    return Store()


def log_to(store: Store, *, max_bytes: int = 10**6, flushed: list[int] | None = None) -> TaskLog:
    count = flushed if flushed is not None else []
    return TaskLog(
        store,  # type: ignore[arg-type]
        task_id="t",
        epoch=2,
        attempt=1,
        max_bytes=max_bytes,
        flushed=lambda: count.append(1),
    )


async def write(log: TaskLog, texts: Sequence[str]) -> None:
    for text in texts:
        await log.write("stdout", text)


async def test_lines_are_numbered_without_gaps_over_all_chunks(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_log, "_CHUNK_LINES", 10)
    flushed: list[int] = []
    log = log_to(store, flushed=flushed)
    await write(log, [str(number) for number in range(35)])
    await log.close()
    assert store.texts == [str(number) for number in range(35)]
    assert [len(chunk.lines) for chunk in store.chunks] == [10, 10, 10, 5]
    assert [chunk.first_line for chunk in store.chunks] == [first_line_of(2) + number for number in (0, 10, 20, 30)]
    assert (log.first_line, log.last_line) == (first_line_of(2), first_line_of(2) + 34)
    assert flushed


async def test_a_log_without_lines_has_no_last_line(store: Store):
    log = log_to(store)
    await log.close()
    await log.close()
    assert log.last_line is None
    assert store.chunks == []


async def test_what_exceeds_the_cap_is_counted_and_marked(store: Store):
    log = log_to(store, max_bytes=100)
    await write(log, ["x" * 30] * 10)
    await log.close()
    assert store.texts[:-1] == ["x" * 30] * 3
    assert "7 further lines" in store.texts[-1]


async def test_empty_lines_fill_a_log_too(store: Store):
    log = log_to(store, max_bytes=100)
    await write(log, [""] * 5000)
    await log.close()
    assert len(store.texts) <= 101
    assert "further lines" in store.texts[-1]


async def test_a_writer_waits_for_a_store_that_is_too_slow(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_log, "_WAITING_LINES", 20)
    store.open.clear()
    log = log_to(store)
    writing = asyncio.create_task(write(log, [str(number) for number in range(100)]))
    done, _ = await asyncio.wait({writing}, timeout=0.3)
    assert not done
    assert len(log._lines) == 20
    store.open.set()
    await asyncio.wait_for(writing, 5)
    await log.close()
    assert store.texts == [str(number) for number in range(100)]


async def test_nothing_is_lost_while_the_store_is_away(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_log, "_RETRY_SECONDS", 0.02)
    store.away = True
    log = log_to(store)
    await write(log, ["a", "b"])
    closing = asyncio.create_task(log.close())
    done, _ = await asyncio.wait({closing}, timeout=0.2)
    assert not done
    store.away = False
    await asyncio.wait_for(closing, 5)
    assert store.texts == ["a", "b"]


async def test_an_abandoned_log_stores_nothing_more_and_holds_nobody_up(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_log, "_WAITING_LINES", 5)
    store.away = True
    log = log_to(store)
    blocked = asyncio.create_task(write(log, ["x"] * 20))
    await asyncio.wait({blocked}, timeout=0.2)
    log.abandon()
    await asyncio.wait_for(blocked, 2)
    store.away = False
    await asyncio.wait_for(write(log, ["", "y"] * 50), 2)
    await asyncio.wait_for(log.close(), 2)
    log.abandon()
    assert store.chunks == []


async def test_a_chunk_that_the_store_refuses_for_good_holds_up_neither_the_run_nor_later_lines(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task_log, "_WAITING_LINES", 5)
    store.error = OverflowError("cannot be encoded")
    log = log_to(store)
    await asyncio.wait_for(write(log, ["bad"] * 20), 5)

    async def waiting() -> int:
        return len(log._lines)

    await eventually(waiting, until=lambda lines: lines == 0)
    assert store.texts == []
    store.error = None
    await asyncio.wait_for(write(log, ["good"]), 5)
    await asyncio.wait_for(log.close(), 5)
    assert "good" in store.texts


async def test_lines_of_a_real_store_are_readable_while_the_run_goes_on(stores: Stores):
    flushed = asyncio.Event()
    log = TaskLog(
        stores.logs,
        task_id="t",
        epoch=1,
        attempt=1,
        max_bytes=1000,
        flushed=flushed.set,
    )
    await log.write("stdout", "first")
    await asyncio.wait_for(flushed.wait(), 5)
    assert [entry.text for entry in await stores.logs.read("t")] == ["first"]
    await log.write("stderr", "second")
    await log.close()
    assert [(entry.stream, entry.text) for entry in await stores.logs.read("t")] == [
        ("stdout", "first"),
        ("stderr", "second"),
    ]
