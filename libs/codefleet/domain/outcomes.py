"""How a run ended. Executors make outcomes; `settle` alone turns them into states."""

from typing import Any

import msgspec

from codefleet.domain.retry import ErrorClass


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a run consumed. Costs are US dollars as the agent reported them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    cpu_seconds: float = 0.0
    max_memory_bytes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=self.cost_usd + other.cost_usd,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            max_memory_bytes=max(self.max_memory_bytes, other.max_memory_bytes),
        )


class Success(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The work was done; `result` is JSON-compatible."""

    result: Any = None
    exit_code: int | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The work was not done. Whether it is retried follows from `error_class` alone.

    Args:
        code: machine-readable, UPPER_SNAKE.
        advice: what the reader can do about it; empty if nothing better than the message is known.
        retry_after_seconds: the earliest sensible retry as told by the service that refused.
    """

    error_class: ErrorClass
    code: str
    message: str
    advice: str = ""
    exit_code: int | None = None
    retry_after_seconds: float | None = None
    result: Any = None


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The run was stopped because somebody asked for it."""

    exit_code: int | None = None


class TimedOut(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The task's own time was up."""

    timeout_seconds: float
    exit_code: int | None = None


class HandedBack(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The worker is going away; the task runs elsewhere and loses no retry."""

    reason: str


Outcome = Success | Failed | Cancelled | TimedOut | HandedBack
