"""The API's answers as far as people are shown them. Fields the server adds are ignored, missing ones have defaults."""

import re
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from codefleet_cli.errors import ExitCode, UnexpectedAnswerError

T = TypeVar("T")

OUTCOMES: dict[str, ExitCode] = {
    "success": ExitCode.SUCCESS,
    "failure": ExitCode.TASK_FAILED,
    "cancelled": ExitCode.TASK_CANCELLED,
    "timeout": ExitCode.TASK_TIMED_OUT,
}
"""The terminal states, and the exit code of a command that followed a task to its end."""

COLOURS: dict[str, str] = {
    "pending": "dim",
    "received": "cyan",
    "started": "cyan",
    "running": "blue",
    "paused": "yellow",
    "waiting_confirmation": "bold yellow",
    "cancelling": "magenta",
    "success": "green",
    "failure": "red",
    "retry": "yellow",
    "cancelled": "magenta",
    "timeout": "red",
}


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    cpu_seconds: float = 0.0
    max_memory_bytes: int = 0


class TaskError(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    class_: str = ""
    code: str = ""
    message: str = ""
    advice: str | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    percentage: float = 0.0
    current_step: str | int | None = None
    total_steps: int | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    worker_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    error: TaskError | None = None
    exit_code: int | None = None
    usage: Usage | None = None


class Move(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One step of a task's life; times are aware."""

    from_: str | None = None
    to: str
    at: datetime | None = None
    cause: str | None = None
    actor: str | None = None
    attempt: int | None = None


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    line: int
    text: str
    stream: str = "stdout"
    attempt: int = 0


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Times are aware, `duration` and `timeout` seconds."""

    task_id: str
    status: str
    name: str | None = None
    type: str = ""
    executor: str = ""
    priority: int | None = None
    prompt: str | None = None
    command: str | None = None
    args: list[str] | None = None
    parameters: dict[str, Any] | None = None
    work_directory: str | None = None
    project_id: str | None = None
    user_id: str | None = None
    tags: list[str] | None = None
    timeout: float | None = None
    max_retries: int | None = None
    retry_count: int = 0
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration: float | None = None
    worker_id: str | None = None
    attempts: list[Attempt] | None = None
    progress: Progress | None = None
    result: Any = None
    error: TaskError | None = None
    usage: Usage | None = None
    history: list[Move] | None = None

    def ran_seconds(self, now: datetime) -> float | None:
        """How long it ran or has been running; None before it starts."""
        if self.duration is not None:
            return self.duration
        if self.started_at is None:
            return None
        return ((self.completed_at or now) - self.started_at).total_seconds()


def convert(data: Any, type_: type[T]) -> T:
    """`data` of an answer as `type_`; raises UnexpectedAnswerError when it does not fit."""
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        raise UnexpectedAnswerError(
            f"the server's answer does not fit this command line ({error})",
            advice="use the same version on both sides, or --json",
        ) from error


def result_text(result: Any) -> str:
    """What a task brought about, as text: an agent's words, else JSON."""
    if result is None:
        return ""
    if isinstance(result, dict) and isinstance(result.get("text"), str):
        return str(result["text"])
    if isinstance(result, str):
        return result
    return msgspec.json.encode(result).decode()


_TASK_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_whole_id(text: str) -> bool:
    return _TASK_ID.fullmatch(text) is not None
