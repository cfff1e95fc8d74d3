"""Turns what a process writes into bounded lines: the longest line, the whole and what waits to be read have limits."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Literal

import msgspec

Pipe = Literal["stdout", "stderr"]

CUT_MARK = " …[cut]"

_CHUNK_BYTES = 1 << 16
_WAITING_BYTES = 1 << 18
"""So much is read ahead of the reader of `lines()`; then the process has to wait for it."""

_REMAINDER_CHUNKS = 32
"""What a pipe can hold (1 MiB unless root asks for more), twice over."""


class OutputLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line without its line end; invalid UTF-8 is replaced, and a line that was cut ends in `CUT_MARK`."""

    stream: Pipe
    text: str
    truncated: bool = False


class LineSplitter:
    """Cuts a stream of bytes into lines and keeps no more than `max_line_bytes` of any."""

    def __init__(self, max_line_bytes: int) -> None:
        self.dropped_bytes = 0
        self._max_line_bytes = max_line_bytes
        self._line = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """The lines that end in `data`, each with whether it was cut."""
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            self._append(end)
            lines.append(self._take())
        self._append(rest)
        return lines

    def end(self) -> list[tuple[bytes, bool]]:
        """The last line, if it has no line end."""
        return [self._take()] if self._line else []

    def _append(self, part: bytes) -> None:
        room = self._max_line_bytes - len(self._line)
        self._line += part[:room]
        if len(part) > room:
            self._cut = True
            self.dropped_bytes += len(part) - room

    def _take(self) -> tuple[bytes, bool]:
        line, cut = bytes(self._line), self._cut
        self._line.clear()
        self._cut = False
        return (line if cut else line.removesuffix(b"\r")), cut


class Output:
    """Both pipes of one process, merged.

    Once `max_output_bytes` were kept, lines are dropped and counted, but for the last of each pipe: there an agent
    says how it ended. The pipes are read on, so the process does not notice.
    """

    def __init__(self, pipes: Mapping[Pipe, int], *, max_line_bytes: int, max_output_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipes = dict(pipes)
        self._splitters = {pipe: LineSplitter(max_line_bytes) for pipe in pipes}
        self._room_bytes = max_output_bytes
        self._full = False
        self._last: dict[Pipe, tuple[bytes, bool]] = {}
        self._dropped_bytes = 0
        self._waiting: deque[OutputLine] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._wanted = True
        self._news = asyncio.Event()
        for descriptor in self._pipes.values():
            os.set_blocking(descriptor, False)
        self._listen()

    @property
    def dropped_bytes(self) -> int:
        """Bytes that were read and not passed on, without line ends."""
        return self._dropped_bytes + sum(splitter.dropped_bytes for splitter in self._splitters.values())

    async def lines(self) -> AsyncIterator[OutputLine]:
        """Every line in the order of arrival, for one reader. If it leaves early, the rest is dropped."""
        try:
            while True:
                while self._waiting:
                    line = self._waiting.popleft()
                    self._waiting_bytes -= len(line.text)
                    if self._paused and self._waiting_bytes <= _WAITING_BYTES // 2:
                        self._listen()
                    yield line
                if not self._pipes:
                    return
                self._news.clear()
                await self._news.wait()
        finally:
            self._wanted = False
            self._waiting.clear()
            self._waiting_bytes = 0
            self._listen()

    def finish(self) -> None:
        """The process and all its offspring are dead: takes what the pipes hold, whoever else may have them open."""
        for pipe in tuple(self._pipes):
            for _ in range(_REMAINDER_CHUNKS):
                if not self._read(pipe):
                    break
            self._close(pipe)

    def _listen(self) -> None:
        self._paused = False
        for pipe, descriptor in self._pipes.items():
            self._loop.add_reader(descriptor, self._read, pipe)

    def _pause(self) -> None:
        self._paused = True
        for descriptor in self._pipes.values():
            self._loop.remove_reader(descriptor)

    def _read(self, pipe: Pipe) -> bool:
        """Takes one chunk; False if there is none at present or any more."""
        if pipe not in self._pipes:
            return False
        try:
            chunk = os.read(self._pipes[pipe], _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._close(pipe)
            return False
        self._take(pipe, self._splitters[pipe].feed(chunk))
        if self._waiting_bytes > _WAITING_BYTES:
            self._pause()
        return True

    def _take(self, pipe: Pipe, lines: list[tuple[bytes, bool]]) -> None:
        for line, cut in lines:
            self._full = self._full or len(line) > self._room_bytes
            if self._full:
                self._dropped_bytes += len(line)
                self._last[pipe] = (line, cut)
            else:
                self._room_bytes -= len(line)
                self._pass_on(pipe, line, cut=cut)
        if lines:
            self._news.set()

    def _pass_on(self, pipe: Pipe, line: bytes, *, cut: bool) -> None:
        if not self._wanted:
            self._dropped_bytes += len(line)
            return
        text = line.decode(errors="replace") + (CUT_MARK if cut else "")
        self._waiting.append(OutputLine(stream=pipe, text=text, truncated=cut))
        self._waiting_bytes += len(text)

    def _close(self, pipe: Pipe) -> None:
        descriptor = self._pipes.pop(pipe, None)
        if descriptor is None:
            return
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._take(pipe, self._splitters[pipe].end())
        if pipe in self._last:
            line, cut = self._last.pop(pipe)
            self._dropped_bytes -= len(line)
            self._pass_on(pipe, line, cut=cut)
        self._news.set()
