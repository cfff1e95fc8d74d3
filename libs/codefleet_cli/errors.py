"""What a command can fail with, and the exit codes.

    CommandError                2  USAGE
    ├── InvalidInputError       2  INVALID_INPUT       what the user gave cannot be sent
    ├── NotConfiguredError      2  NOT_CONFIGURED      no server is known
    ├── RefusedError            2  (the server's own)  the server answered with an error
    │   └── ServerFailedError   3  (the server's own)  and the fault is the server's
    └── UnreachableError        3  UNREACHABLE         no answer
        ├── DroppedError        3  UNREACHABLE         the connection broke after it was made
        └── UnexpectedAnswerError  3  UNEXPECTED_ANSWER  what answered is not codefleet

Each is shown as one line on standard error, or with `--json` as the API's error envelope on standard output.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import IO, Any, ClassVar

import click

from codefleet_cli.text import clean


class ExitCode(IntEnum):
    SUCCESS = 0
    TASK_FAILED = 1
    REFUSED = 2
    UNREACHABLE = 3
    TASK_CANCELLED = 4
    TASK_TIMED_OUT = 5
    INTERRUPTED = 130


class CommandError(click.ClickException):
    """The root. `advice` says what the user can do; `as_json` is set by the command that shows the error."""

    exit_code = ExitCode.REFUSED
    code: ClassVar[str] = "USAGE"

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice
        self.as_json = False

    def envelope(self) -> dict[str, Any]:
        """The error in the shape in which the API gives its own."""
        error = {"code": self.code, "message": self.message, "details": {"advice": self.advice}}
        return {"success": False, "error": error, "timestamp": datetime.now(UTC).isoformat()}

    def format_message(self) -> str:
        line = self.message if not self.advice else f"{self.message.rstrip('.')}: {self.advice}"
        return clean(line)

    def show(self, file: IO[Any] | None = None) -> None:
        if self.as_json:
            click.echo(json.dumps(self.envelope(), ensure_ascii=False))
        else:
            click.echo(f"codefleet: {self.format_message()}", file=file, err=file is None)


class InvalidInputError(CommandError):
    code = "INVALID_INPUT"


class NotConfiguredError(CommandError):
    code = "NOT_CONFIGURED"


class UnreachableError(CommandError):
    exit_code = ExitCode.UNREACHABLE
    code = "UNREACHABLE"


class DroppedError(UnreachableError):
    """The connection broke after it was made; whether the request took effect is unknown."""


class UnexpectedAnswerError(UnreachableError):
    code = "UNEXPECTED_ANSWER"


class RefusedError(CommandError):
    """The server's own error: its HTTP status, its envelope, and how long it asks to wait (seconds), if it does."""

    def __init__(
        self,
        status: int,
        body: Mapping[str, Any],
        *,
        advice: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        error = body["error"]
        details = error.get("details") or {}
        super().__init__(_located(error["message"], details), advice=details.get("advice") or advice)
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self._body = body

    @property
    def is_temporary(self) -> bool:
        return self.status in {429, 502, 503, 504}

    def envelope(self) -> dict[str, Any]:
        return dict(self._body)


class ServerFailedError(RefusedError):
    exit_code = ExitCode.UNREACHABLE


def _located(message: str, details: Mapping[str, Any]) -> str:
    """The message with the field and the reason, unless it already says them."""
    field, reason = details.get("field") or "", details.get("reason") or ""
    if reason and reason not in message:
        message = f"{message}: {reason}"
    return message if field in message else f"{field}: {message}"
