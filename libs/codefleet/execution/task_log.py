"""A run's log on its way to the log store: gathered for a moment, capped, and never lost silently."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from codefleet.clock import utc_now
from codefleet.errors import UnavailableError
from codefleet.execution.drivers import Stream
from codefleet.storage.logs import LogChunk, LogLine, LogRepository, first_line_of

_FLUSH_SECONDS = 0.1
_CHUNK_LINES = 500
_CHUNK_CHARACTERS = 256 * 1024
_WAITING_LINES = 20_000
_RETRY_SECONDS = 0.5

log = structlog.get_logger(__name__)


class TaskLog:
    """Line numbers rise by one within the run; `flushed` is called after lines became durable.

    Args:
        max_bytes: what exceeds it is counted and marked, not stored.
    """

    def __init__(
        self,
        logs: LogRepository,
        *,
        task_id: str,
        epoch: int,
        attempt: int,
        max_bytes: int,
        flushed: Callable[[], None],
    ) -> None:
        self._logs = logs
        self._task_id = task_id
        self._epoch = epoch
        self._attempt = attempt
        self._flushed = flushed
        self._room = max_bytes
        self._cut_lines = 0
        self._lines: list[LogLine] = []
        self._stored = 0
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._closed = asyncio.Event()
        self._writer = asyncio.get_running_loop().create_task(self._write_all())

    @property
    def first_line(self) -> int:
        return first_line_of(self._epoch)

    @property
    def last_line(self) -> int | None:
        """The number of the last line stored; None if there is none."""
        return self.first_line + self._stored - 1 if self._stored else None

    async def write(self, stream: Stream, text: str) -> None:
        """Adds a line; waits while too many are on their way, which slows the agent down to what can be stored."""
        await self._has_room.wait()
        self._room -= len(text.encode(errors="surrogatepass")) + 1  # with its line end: empty lines fill it too
        if self._room < 0:
            self._cut_lines += 1
            return
        self._append(stream, text)

    async def close(self) -> None:
        """Returns when everything written is durable or the store has been away for too long."""
        if self._cut_lines:
            self._append("system", f"… the log is full: {self._cut_lines} further lines were not stored")
        self._closed.set()
        self._wake.set()
        await asyncio.wait({self._writer})

    def abandon(self) -> None:
        """Gives up what is not stored yet; later lines are ignored."""
        self._writer.cancel()
        self._room = -1
        self._has_room.set()

    def _append(self, stream: Stream, text: str) -> None:
        self._lines.append(LogLine(stream=stream, text=text, at=utc_now()))
        if len(self._lines) >= _WAITING_LINES:
            self._has_room.clear()
        if not self._wake.is_set():
            self._wake.set()

    async def _write_all(self) -> None:
        while not (self._closed.is_set() and not self._lines):
            await self._wake.wait()
            await self._gather()
            self._wake.clear()
            while self._lines:
                await self._store(self._next_chunk())
            self._flushed()
            if self._closed.is_set():
                self._wake.set()

    async def _gather(self) -> None:
        """Lets more lines come for a moment, unless none will."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._closed.wait()

    def _next_chunk(self) -> list[LogLine]:
        characters = 0
        for count, line in enumerate(self._lines[:_CHUNK_LINES], start=1):
            characters += len(line.text)
            if characters >= _CHUNK_CHARACTERS:
                return self._lines[:count]
        return self._lines[:_CHUNK_LINES]

    async def _store(self, lines: list[LogLine]) -> None:
        chunk = LogChunk(
            task_id=self._task_id,
            attempt=self._attempt,
            epoch=self._epoch,
            first_line=self.first_line + self._stored,
            lines=lines,
        )
        while True:
            try:
                await self._logs.append(chunk)
                break
            except UnavailableError:
                # The run's lease ends long before this could go on for ever, and with it this writer.
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:
                log.exception("log lines refused", count=len(lines))
                self._cut_lines += len(lines)
                break
        self._stored += len(lines)
        del self._lines[: len(lines)]
        self._has_room.set()
