"""What the readers of all command-line agents share: tolerant access to foreign JSON, words for a log, ends without
a result. Pure.
"""

import signal
from collections.abc import Iterator
from typing import Any, Protocol, Self

import msgspec

from codefleet.domain.outcomes import Failed, Success, Usage
from codefleet.domain.retry import ErrorClass
from codefleet.execution.drivers import AgentEvent, Log, Stream
from codefleet.execution.supervisor import Exit

_LARGEST = 2**53
_ABBREVIATED_CHARACTERS = 200
_SIGNALLED = 128
"""What a shell adds to a signal's number; agents that catch a signal exit that way too."""

_TELLING = (
    *("file_path", "notebook_path", "path", "command", "pattern", "globPattern", "url", "query", "description"),
    *("toolName", "skill", "prompt"),
)
"""Arguments of tools by which a reader recognizes the call, most telling first."""


class AgentEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent's process ended.

    Args:
        stderr: the last lines of it, without secrets.
        stopped: it was asked to end.
    """

    exit: Exit
    stderr: tuple[str, ...] = ()
    stopped: bool = False


class AgentReader(Protocol):
    """Understands what one agent prints in one run. Does no I/O, and raises on no input whatever."""

    @property
    def completed(self) -> bool:
        """The agent has said how it ended; nothing it does from now on counts."""
        ...

    def read(self, line: str) -> list[AgentEvent]:
        """What a line of its stdout means; no `UsageReport` and no `Result`."""
        ...

    def usage(self) -> Usage:
        """What the agent said it has consumed."""
        ...

    def outcome(self, end: AgentEnd) -> Success | Failed: ...


class Fields:
    """A JSON object of a foreign program: what is missing or of another type than asked for reads as empty."""

    def __init__(self, value: object) -> None:
        self._values: dict[str, Any] = value if isinstance(value, dict) else {}

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """None if the line is no JSON object."""
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None
        return cls(value) if isinstance(value, dict) else None

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def text(self, name: str) -> str:
        value = self._values.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> float | None:
        """Not negative, and no more than a float holds exactly."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(max(0, min(_LARGEST, value)))

    def count(self, name: str) -> int:
        return int(self.number(name) or 0)

    def is_true(self, name: str) -> bool:
        return self._values.get(name) is True

    def fields(self, name: str) -> "Fields":
        return Fields(self._values.get(name))

    def objects(self, name: str) -> list["Fields"]:
        """The objects in a list."""
        value = self._values.get(name)
        return [Fields(item) for item in value if isinstance(item, dict)] if isinstance(value, list) else []

    def texts(self, name: str) -> list[str]:
        """The strings in a list."""
        value = self._values.get(name)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def spoken(self, name: str) -> str:
        """Text that is either a string or a list of blocks with `text`."""
        return self.text(name) or "\n".join(filter(None, (block.text("text") for block in self.objects(name))))


class Unfamiliar:
    """Mentions each type of event that is not understood, once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def mention(self, kind: str) -> list[AgentEvent]:
        kind = abbreviated(kind) or "without a type"
        if kind in self._seen:
            return []
        self._seen.add(kind)
        return [Log(stream="system", text=f"events that codefleet does not know are left out: {kind}")]


def log_lines(stream: Stream, text: str) -> list[AgentEvent]:
    """A text as lines of the log, without empty ones at its ends."""
    return [Log(stream=stream, text=line.rstrip()) for line in text.strip().splitlines()]


def abbreviated(text: str) -> str:
    """A text in one line of a log: its first line, and how much more there is."""
    first, *rest = text.strip().splitlines() or [""]
    if len(first) > _ABBREVIATED_CHARACTERS:
        first = f"{first[:_ABBREVIATED_CHARACTERS]}…"
    if not rest:
        return first
    return f"{first} … ({len(rest)} more {'line' if len(rest) == 1 else 'lines'})"


def described_call(tool: str, arguments: Fields, directory: str) -> str:
    """A tool call in a few words, such as `Write HELLO.md`; paths are told from `directory` on."""
    telling = next((text for name in _TELLING if (text := arguments.text(name))), "")
    return f"{tool or 'tool'} {abbreviated(_relative(telling, directory))}".rstrip()


def without_result(end: AgentEnd, *, program: str, began: bool) -> Failed:
    """Why an agent ended that did not say how.

    Args:
        began: it printed at least one event.
    """
    number = _signal_number(end.exit)
    last_words = f": {' / '.join(end.stderr)}" if end.stderr else ""
    if end.stopped:
        return stopped(end)
    if end.exit.reason == "lease":
        return _ended(end, ErrorClass.WORKER_LOST, "LEASE_ENDED", f"{program} was ended with the lease of its task")
    if number is not None or end.exit.reason != "exit":
        return _killed(end, program, number, last_words)
    message = f"{program} exited with {end.exit.exit_code} and without a result{last_words}"
    if end.exit.exit_code == 0:
        return _ended(end, ErrorClass.TEMPORARY, "NO_RESULT", message)
    if began:
        return _ended(end, ErrorClass.TEMPORARY, "AGENT_DIED", message)
    return _ended(
        end,
        ErrorClass.CONFIGURATION,
        "AGENT_REFUSED_TO_START",
        message,
        advice=f"Check the task's parameters and the version of {program} on the executor's machine",
    )


def stopped(end: AgentEnd) -> Failed:
    """For an agent that was asked to end."""
    return _ended(end, ErrorClass.TEMPORARY, "STOPPED", "The run was stopped")


def _killed(end: AgentEnd, program: str, number: int | None, last_words: str) -> Failed:
    name = signal.Signals(number).name if number in set(signal.Signals) else "its guardian's end"
    advice = "The machine may be out of memory" if number == signal.SIGKILL else ""
    message = f"{program} was killed by {name}{last_words}"
    return _ended(end, ErrorClass.TEMPORARY, "AGENT_KILLED", message, advice=advice)


def _ended(end: AgentEnd, error_class: ErrorClass, code: str, message: str, *, advice: str = "") -> Failed:
    return Failed(error_class=error_class, code=code, message=message, advice=advice, exit_code=end.exit.exit_code)


def _signal_number(end: Exit) -> int | None:
    if end.signal is not None:
        return end.signal
    code = end.exit_code or 0
    return code - _SIGNALLED if code > _SIGNALLED else None


def _relative(text: str, directory: str) -> str:
    return text.removeprefix(f"{directory}/") if directory else text
