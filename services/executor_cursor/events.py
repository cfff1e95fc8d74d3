"""What the Cursor CLI prints with `--output-format stream-json`, in codefleet's words. Pure.

Source: https://cursor.com/docs/cli/reference/output-format. Beyond it, as users have reported: the types `thinking` and
`interaction_query`, `usage` in the result, rejected tool calls, and processes that stay after their result.
"""

import re
from typing import Any

import msgspec

from codefleet.domain.outcomes import Failed, Success, Usage
from codefleet.domain.retry import ErrorClass
from codefleet.execution.agent_output import (
    AgentEnd,
    Fields,
    Unfamiliar,
    abbreviated,
    described_call,
    log_lines,
    without_result,
)
from codefleet.execution.drivers import AgentEvent, Log, Progress, Session

PROGRAM = "Cursor CLI"

_SILENT = frozenset({"user", "thinking", "interaction_query"})
"""Known, and nothing for the log: the prompt itself, thoughts in pieces, questions that print mode answers with no."""
_WITH_SUBTYPE = frozenset({"system", "tool_call"})


class _Sign(msgspec.Struct, frozen=True):
    """Words by which an error that is only told in prose is known."""

    pattern: str
    error_class: ErrorClass
    code: str
    advice: str = ""


_SIGNS = (
    _Sign(
        r"unauthenticated|authentication|not logged in|api key|\b40[13]\b",
        ErrorClass.AUTHENTICATION,
        "CURSOR_CREDENTIALS_REFUSED",
        "Check CURSOR_API_KEY of the executor",
    ),
    _Sign(r"rate.?limit|resource_exhausted|usage limit|quota|\b429\b", ErrorClass.RATE_LIMIT, "CURSOR_RATE_LIMITED"),
    _Sign(r"overloaded|unavailable|\b5\d\d\b", ErrorClass.SERVICE_UNAVAILABLE, "CURSOR_UNAVAILABLE"),
    _Sign(
        r"ECONN|ENOTFOUND|ETIMEDOUT|EAI_AGAIN|connection|network",
        ErrorClass.CONNECTION,
        "CURSOR_CONNECTION_FAILED",
        "Check the executor's network",
    ),
)


class CursorOutput:
    """Reads one run, see `agent_output.AgentReader`."""

    def __init__(self) -> None:
        self._unfamiliar = Unfamiliar()
        self._directory = ""
        self._began = False
        self._calls = 0
        self._rejected: list[dict[str, str]] = []
        self._result: Fields | None = None

    @property
    def completed(self) -> bool:
        return self._result is not None

    def read(self, line: str) -> list[AgentEvent]:
        event = Fields.parse(line)
        if event is None:
            return [Log(stream="stdout", text=line)] if line.strip() else []
        self._began = True
        kind = event.text("type")
        if kind in _SILENT:
            return []
        if kind in _WITH_SUBTYPE:
            kind = f"{kind}/{event.text('subtype')}"
        understand = {
            "system/init": self._init,
            "assistant": self._assistant,
            "tool_call/started": self._call_started,
            "tool_call/completed": self._call_completed,
            "result": self._take_result,
        }.get(kind)
        return understand(event) if understand else self._unfamiliar.mention(kind)

    def usage(self) -> Usage:
        """As the result tells it; the documentation promises no figures, and cost is never told."""
        told = (self._result or Fields(None)).fields("usage")
        read = ("inputTokens", "cacheReadTokens", "cacheWriteTokens")
        return Usage(
            input_tokens=sum(told.count(name) for name in read),
            output_tokens=told.count("outputTokens"),
        )

    def outcome(self, end: AgentEnd) -> Success | Failed:
        if self._result is None:
            return _recognized(without_result(end, program=PROGRAM, began=self._began))
        if self._result.text("subtype") == "success" and not self._result.is_true("is_error"):
            return Success(result=self._value(self._result), exit_code=end.exit.exit_code)
        message = self._result.text("result") or "The agent did not complete its work"
        return _recognized(
            Failed(
                error_class=ErrorClass.TEMPORARY,
                code="AGENT_FAILED",
                message=message,
                exit_code=end.exit.exit_code,
            ),
        )

    def _init(self, event: Fields) -> list[AgentEvent]:
        self._directory = event.text("cwd")
        session = Session(session_id=event.text("session_id"), model=event.text("model"))
        return [session] if session.session_id else []

    def _assistant(self, event: Fields) -> list[AgentEvent]:
        return log_lines("agent", event.fields("message").spoken("content"))

    def _call_started(self, event: Fields) -> list[AgentEvent]:
        self._calls += 1
        step = _described(event.fields("tool_call"), self._directory)
        return [
            Log(stream="agent", text=f"→ {step}"),
            Progress(current_step=step, details={"tool_calls": self._calls}),
        ]

    def _call_completed(self, event: Fields) -> list[AgentEvent]:
        call = event.fields("tool_call")
        result = _body(call).fields("result")
        if "rejected" not in result:
            return [Log(stream="agent", text=_told(result))]
        reason = abbreviated(result.fields("rejected").text("reason")) or "no reason given"
        self._rejected.append({"call": _described(call, self._directory), "reason": reason})
        return [Log(stream="system", text=f"✗ not allowed: {reason}")]

    def _take_result(self, event: Fields) -> list[AgentEvent]:
        self._result = event
        if not self._rejected:
            return []
        advice = "parameters.force lets the agent work without being asked"
        return [Log(stream="system", text=f"{len(self._rejected)} tool calls were not allowed; {advice}")]

    def _value(self, result: Fields) -> dict[str, Any]:
        value: dict[str, Any] = {"text": result.text("result"), "session_id": result.text("session_id")}
        return value | ({"rejected_tool_calls": self._rejected} if self._rejected else {})


def _described(call: Fields, directory: str) -> str:
    body = _body(call)
    if "function" in call:
        return described_call(body.text("name"), Fields.parse(body.text("arguments")) or Fields(None), directory)
    tool = next(iter(call), "").removesuffix("ToolCall")
    return described_call(tool.capitalize(), body.fields("args"), directory)


def _body(call: Fields) -> Fields:
    return call.fields(next(iter(call), ""))


def _told(result: Fields) -> str:
    if "success" not in result:
        reason = result.fields("error").text("message") or result.text("error")
        return f"✗ {abbreviated(reason) or 'failed'}"
    success = result.fields("success")
    exit_code = success.count("exitCode")
    said = abbreviated(success.text("stdout") or success.text("stderr") or success.text("content"))
    return f"✗ exit code {exit_code} {said}".rstrip() if exit_code else f"← {said or 'done'}"


def _recognized(failure: Failed) -> Failed:
    """The failure with a better class, if its words give one away and it is not a matter of signals."""
    if failure.code not in {"AGENT_FAILED", "AGENT_DIED", "AGENT_REFUSED_TO_START"}:
        return failure
    for sign in _SIGNS:
        if re.search(sign.pattern, failure.message, re.IGNORECASE):
            return msgspec.structs.replace(
                failure, error_class=sign.error_class, code=sign.code, advice=sign.advice or failure.advice
            )
    return failure
