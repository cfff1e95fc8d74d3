"""The merged log of a stack: one line in, one line out, for people or for programs."""

import contextlib
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

LogFormat = Literal["console", "json"]

_QUEUE_LINES = 10_000
_NAME_WIDTH = 17
_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_LEVEL_COLOURS: Final = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}
_NAME_COLOURS: Final = ("\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[96m", "\x1b[95m", "\x1b[94m")
_SHOWN_FIRST: Final = frozenset({"event", "level", "timestamp", "service", "exception"})
# What agents print must not move the cursor or rename the terminal of whoever watches.
_VISIBLE: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != ord("\t")}


def parse_line(text: str) -> dict[str, Any] | None:
    """The fields of a structlog JSON line; None for anything else."""
    if not text.startswith("{"):
        return None
    with contextlib.suppress(msgspec.DecodeError):
        fields = msgspec.json.decode(text)
        if isinstance(fields, dict) and isinstance(fields.get("event"), str):
            return fields
    return None


class LogRenderer:
    """`HH:MM:SS service  level event key=value…`, in colour when asked."""

    def __init__(self, *, colour: bool = False) -> None:
        self._colour = colour

    def line(self, name: str, text: str) -> str:
        fields = parse_line(text)
        if fields is None:
            return f"{self._head(name, datetime.now(UTC))} {text.translate(_VISIBLE)}"
        level = str(fields.get("level", "info"))
        shown = [
            self._head(name, _moment(fields.get("timestamp"))),
            self._paint(f"{level:<8}", _LEVEL_COLOURS.get(level, "")),
            fields["event"].translate(_VISIBLE),
        ]
        shown += [self._field(key, value) for key, value in fields.items() if key not in _SHOWN_FIRST]
        return " ".join(shown) + _exception(fields.get("exception"))

    def _head(self, name: str, moment: datetime) -> str:
        # Not hash(): a service keeps its colour from run to run.
        colour = _NAME_COLOURS[sum(name.encode()) % len(_NAME_COLOURS)]
        return f"{self._paint(f'{moment.astimezone():%H:%M:%S}', _DIM)} {self._paint(f'{name:<{_NAME_WIDTH}}', colour)}"

    def _field(self, key: str, value: Any) -> str:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if not text or (isinstance(value, str) and any(character in text for character in ' "\n')):
            text = msgspec.json.encode(text).decode()
        return f"{self._paint(key.translate(_VISIBLE), _DIM)}={text.translate(_VISIBLE)}"

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour and colour else text


class StackLog:
    """Takes lines of children and events of `up` itself and hands the result to `write`.

    `write` runs in a thread of its own, so that a terminal that stands still (Ctrl-S, a full pipe) never holds up the
    supervision; lines beyond 10,000 waiting ones are dropped and counted. A `write` that fails ends the output only;
    without one nothing is put out.
    """

    def __init__(
        self,
        write: Callable[[bytes], object] | None,
        *,
        log_format: LogFormat = "console",
        colour: bool = False,
    ) -> None:
        self._write = write
        self._format = log_format
        self._renderer = LogRenderer(colour=colour)
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUE_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._drain, name="stack-log", daemon=True)
        if write:
            self._thread.start()

    def line(self, name: str, text: str) -> None:
        """One line that the child `name` printed."""
        if text:
            self.plain(text if self._format == "json" else self._renderer.line(name, text))

    def event(self, level: str, event: str, **fields: Any) -> None:
        """One event of `up` itself."""
        record = {"event": event, "service": "up", "level": level, "timestamp": datetime.now(UTC).isoformat(), **fields}
        self.line("up", msgspec.json.encode(record).decode())

    def plain(self, text: str) -> None:
        """One line as it is, in any format."""
        if self._write is None:
            return
        try:
            if self._dropped:
                self._lines.put_nowait(f"… {self._dropped} log lines dropped: the output was not read fast enough")
                self._dropped = 0
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Lets waiting lines out, for at most `timeout_seconds`."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout_seconds)

    def _drain(self) -> None:
        while self._write and (text := self._lines.get()) is not None:
            try:
                self._write(text.encode(errors="replace") + b"\n")
            except OSError:
                self._write = None


def _moment(timestamp: Any) -> datetime:
    with contextlib.suppress(ValueError, TypeError):
        return datetime.fromisoformat(timestamp)
    return datetime.now(UTC)


def _exception(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(f"\n    {line.translate(_VISIBLE)}" for line in value.splitlines())
