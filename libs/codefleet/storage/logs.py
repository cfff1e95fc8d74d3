"""The logs of tasks: chunks of consecutive lines, apart from the task documents.

A line's number is unique and rising within its task without any coordination: the epoch of the run that wrote it,
then the line's place in that run. So a stale run can only add to its own stretch, never write over a newer one's.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import msgspec
from pymongo import InsertOne
from pymongo.errors import BulkWriteError

from codefleet.storage.bson import DUPLICATE_KEY, from_bson, to_bson
from codefleet.storage.group_commit import GroupCommit
from codefleet.storage.mongo import Mongo, Raw, translated

LINES_PER_EPOCH = 1_000_000_000


def first_line_of(epoch: int) -> int:
    return epoch * LINES_PER_EPOCH


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    stream: str
    text: str
    at: datetime


class LogChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Lines `first_line` to `first_line + len(lines) - 1` of a task's log."""

    task_id: str
    attempt: int
    epoch: int
    first_line: int
    lines: list[LogLine]


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A line as readers see it."""

    line: int
    attempt: int
    stream: str
    text: str
    at: datetime


class LogRepository:
    def __init__(self, mongo: Mongo) -> None:
        self._chunks = mongo.collection("log_chunks")
        self._appends: GroupCommit[Raw, None] = GroupCommit(self._append_batch)

    async def append(self, chunk: LogChunk) -> None:
        """Stores a chunk; storing the same chunk again changes nothing.

        Raises:
            UnavailableError: MongoDB is away; the chunk may be appended again.
        """
        raw = to_bson(chunk)
        raw["_id"] = f"{chunk.task_id}:{chunk.first_line}"
        raw["last_line"] = chunk.first_line + len(chunk.lines) - 1
        await self._appends.submit(raw)

    async def read(self, task_id: str, *, after: int = -1, limit: int = 1000) -> list[LogEntry]:
        """Up to about `limit` lines (whole chunks) that follow line `after`, in order."""
        entries: list[LogEntry] = []
        async for chunk in self._chunks_after(task_id, after):
            entries += [entry for entry in _entries(chunk) if entry.line > after]
            if len(entries) >= limit:
                break
        return entries[:limit]

    async def _chunks_after(self, task_id: str, after: int) -> AsyncIterator[LogChunk]:
        filter_ = {"task_id": task_id, "last_line": {"$gt": after}}
        with translated():
            async for raw in self._chunks.find(filter_).sort("last_line", 1).batch_size(50):
                yield from_bson(raw, LogChunk)

    async def _append_batch(self, batch: Sequence[Raw]) -> Sequence[Exception | None]:
        with translated():
            try:
                await self._chunks.bulk_write([InsertOne(raw) for raw in batch], ordered=False)
            except BulkWriteError as error:
                refused = [item for item in error.details["writeErrors"] if item.get("code") != DUPLICATE_KEY]
                if refused or error.details.get("writeConcernErrors"):
                    raise
        return [None] * len(batch)


def _entries(chunk: LogChunk) -> list[LogEntry]:
    return [
        LogEntry(line=number, attempt=chunk.attempt, stream=line.stream, text=line.text, at=line.at)
        for number, line in enumerate(chunk.lines, start=chunk.first_line)
    ]
