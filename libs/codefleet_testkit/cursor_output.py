"""What the Cursor double prints: the documented events of `--output-format stream-json`, one JSON object a line.

Source: https://cursor.com/docs/cli/reference/output-format
"""

import json
import sys
import time
import uuid
from typing import Any

from codefleet_testkit.directives import Usage
from codefleet_testkit.programs import words


class CursorOutput:
    """The double's stdout.

    Args:
        partial: `--stream-partial-output`: what is said comes word by word first, and then once more as a whole.
    """

    def __init__(self, session_id: str, *, partial: bool) -> None:
        self._session_id = session_id
        self._partial = partial
        self._started = time.monotonic()
        self._said: list[str] = []

    def event(self, **fields: Any) -> None:
        """An event of any type, with the session's id."""
        self.line(json.dumps({**fields, "session_id": self._session_id}, ensure_ascii=False, separators=(",", ":")))

    def line(self, text: str) -> None:
        """A line as it is, in bytes at once."""
        self.fragment(f"{text}\n")

    def fragment(self, text: str) -> None:
        """Text without a line end."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def init(self, *, workspace: str, model: str) -> None:
        self.event(
            type="system",
            subtype="init",
            apiKeySource="env",
            cwd=workspace,
            model=model,
            permissionMode="default",
        )

    def prompt(self, text: str) -> None:
        self.event(type="user", message=_spoken("user", text))

    def say(self, text: str, *, pause_seconds: float) -> None:
        """What the agent says, with a pause after each word if it is slow."""
        for word in words(text):
            if self._partial:
                self.event(type="assistant", message=_spoken("assistant", word), timestamp_ms=_now_milliseconds())
            time.sleep(pause_seconds)
        self.event(type="assistant", message=_spoken("assistant", text))
        self._said.append(text)

    def tool_call(self, call_id: str, name: str, args: dict[str, Any], result: dict[str, Any] | None = None) -> None:
        """The start of a tool call, or with `result` its end."""
        call = {"args": args} if result is None else {"args": args, "result": result}
        subtype = "started" if result is None else "completed"
        self.event(type="tool_call", subtype=subtype, call_id=call_id, tool_call={name: call})

    def result(self, usage: Usage | None) -> None:
        """The last event; `usage` in it is reported, not documented."""
        duration = int((time.monotonic() - self._started) * 1000) + 1
        extra = {"usage": _reported_usage(usage)} if usage else {}
        self.event(
            type="result",
            subtype="success",
            duration_ms=duration,
            duration_api_ms=duration,
            is_error=False,
            result="".join(self._said),
            request_id=str(uuid.uuid4()),
            **extra,
        )


def _spoken(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _reported_usage(usage: Usage) -> dict[str, int]:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cacheReadTokens": 0,
        "cacheWriteTokens": 0,
    }


def _now_milliseconds() -> int:
    return int(time.time() * 1000)
