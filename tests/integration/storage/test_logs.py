"""Log chunks in a real MongoDB."""

import asyncio

import pytest

from codefleet.clock import utc_now
from codefleet.service import Stores
from codefleet.storage.logs import LINES_PER_EPOCH, LogChunk, LogLine, LogRepository, first_line_of


@pytest.fixture
def logs(stores: Stores) -> LogRepository:
    return stores.logs


def chunk(first: int, texts: list[str], *, epoch: int = 1, task_id: str = "t") -> LogChunk:
    return LogChunk(
        task_id=task_id,
        attempt=epoch,
        epoch=epoch,
        first_line=first_line_of(epoch) + first,
        lines=[LogLine(stream="stdout", text=text, at=utc_now()) for text in texts],
    )


async def texts(logs: LogRepository, **where: int) -> list[str]:
    return [entry.text for entry in await logs.read("t", **where)]


async def test_lines_come_back_in_order_however_they_were_stored(logs: LogRepository):
    chunks = [chunk(10 * number, [f"{10 * number + line}" for line in range(10)]) for number in range(20)]
    await asyncio.gather(*(logs.append(piece) for piece in reversed(chunks)))
    entries = await logs.read("t")
    assert [entry.text for entry in entries] == [str(number) for number in range(200)]
    assert [entry.line for entry in entries] == [first_line_of(1) + number for number in range(200)]
    assert await logs.read("another") == []


async def test_reading_resumes_anywhere_also_within_a_chunk(logs: LogRepository):
    for first in range(0, 30, 10):
        await logs.append(chunk(first, [str(first + line) for line in range(10)]))
    seen: list[str] = []
    after = -1
    while entries := await logs.read("t", after=after, limit=7):
        assert len(entries) <= 7
        seen += [entry.text for entry in entries]
        after = entries[-1].line
    assert seen == [str(number) for number in range(30)]
    assert await texts(logs, after=first_line_of(1) + 13, limit=3) == ["14", "15", "16"]
    assert await texts(logs, after=first_line_of(1) + 29) == []


async def test_a_chunk_stored_again_after_a_lost_reply_changes_nothing(logs: LogRepository):
    piece = chunk(0, ["a", "b"])
    await logs.append(piece)
    await asyncio.gather(logs.append(piece), logs.append(chunk(2, ["c"])), logs.append(piece))
    assert await texts(logs) == ["a", "b", "c"]


async def test_runs_write_to_stretches_of_their_own(logs: LogRepository):
    await logs.append(chunk(0, ["new"], epoch=2))
    await logs.append(chunk(0, ["old"], epoch=1))  # a stale run, late
    entries = await logs.read("t")
    assert [(entry.attempt, entry.text) for entry in entries] == [(1, "old"), (2, "new")]
    assert entries[1].line - entries[0].line == LINES_PER_EPOCH


async def test_a_line_that_cannot_be_stored_hurts_no_other_task(logs: LogRepository):
    pieces = [chunk(0, ["fine"], task_id=f"t{number}") for number in range(4)]
    pieces[1] = chunk(0, ["lone \ud800 surrogate"], task_id="t1")
    answers = await asyncio.gather(*map(logs.append, pieces), return_exceptions=True)
    assert isinstance(answers[1], Exception)
    assert [len(await logs.read(f"t{number}")) for number in range(4)] == [1, 0, 1, 1]


async def test_a_log_is_read_by_its_index(stores: Stores):
    await asyncio.gather(*(stores.logs.append(chunk(0, ["x"], task_id=f"t{number}")) for number in range(50)))
    await stores.mongo.database.command("profile", 2)
    assert await stores.logs.read("t7", after=5)
    await stores.mongo.database.command("profile", 0)
    ran = await stores.mongo.collection("system.profile").find_one({"command.find": "log_chunks"})
    assert ran["docsExamined"] == 1
    assert not ran.get("hasSortStage")
