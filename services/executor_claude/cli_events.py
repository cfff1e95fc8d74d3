"""What the Claude Code CLI prints with `--output-format stream-json --verbose`, in codefleet's words. Pure.

Source: https://code.claude.com/docs/en/headless, and the events of version 2.1.330. Exit codes say nothing here: an
error of the API exits with 1 and the subtype `success`, a stopped run with 0.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from codefleet.clock import utc_now
from codefleet.domain.outcomes import Failed, Success, Usage
from codefleet.execution.agent_output import (
    AgentEnd,
    Fields,
    Unfamiliar,
    abbreviated,
    described_call,
    log_lines,
    without_result,
)
from codefleet.execution.drivers import AgentEvent, Log, Progress, Session, Stream
from services.executor_claude.cli_outcome import failure_of

PROGRAM = "Claude Code CLI"


class ClaudeOutput:
    """Reads one run, see `agent_output.AgentReader`.

    Args:
        now: the time, to which the API's resets are compared.
    """

    def __init__(self, *, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._unfamiliar = Unfamiliar()
        self._directory = ""
        self._began = False
        self._turns: dict[str, Usage] = {}
        self._denied: set[str] = set()
        self._api_error = ""
        self._wait_seconds: float | None = None
        self._result: Fields | None = None

    @property
    def completed(self) -> bool:
        return self._result is not None

    def read(self, line: str) -> list[AgentEvent]:
        event = Fields.parse(line)
        if event is None:
            return [Log(stream="stdout", text=line)] if line.strip() else []
        self._began = True
        kind, subtype = event.text("type"), event.text("subtype")
        if kind == "system":
            kind = f"system/{subtype}"
        understand = {
            "system/init": self._init,
            "system/api_retry": self._api_retry,
            "system/permission_denied": self._permission_denied,
            "rate_limit_event": self._rate_limit,
            "assistant": self._assistant,
            "user": self._user,
            "result": self._take_result,
        }.get(kind)
        return understand(event) if understand else self._unfamiliar.mention(kind)

    def usage(self) -> Usage:
        """As the result tells it; the turns tell at least what was read, also if there is no result or it is silent."""
        turns = sum(self._turns.values(), Usage())
        result = self._result or Fields(None)
        told = _usage(result.fields("usage"))
        return Usage(
            input_tokens=max(told.input_tokens, turns.input_tokens),
            output_tokens=max(told.output_tokens, turns.output_tokens),
            cost_usd=result.number("total_cost_usd") or 0.0,
        )

    def outcome(self, end: AgentEnd) -> Success | Failed:
        if self._result is None:
            return without_result(end, program=PROGRAM, began=self._began)
        failure = failure_of(self._result, end, api_error=self._api_error, wait_seconds=self._wait_seconds)
        return failure or Success(result=_value(self._result), exit_code=end.exit.exit_code)

    def _init(self, event: Fields) -> list[AgentEvent]:
        self._directory = event.text("cwd")
        session = Session(session_id=event.text("session_id"), model=event.text("model"))
        return [session] if session.session_id else []

    def _api_retry(self, event: Fields) -> list[AgentEvent]:
        seconds = (event.number("retry_delay_ms") or 0.0) / 1000
        self._wait_seconds = seconds
        status = event.count("error_status")
        reason = " ".join(filter(None, (str(status or ""), event.text("error"))))
        asked = "the API asked to wait" if status else "the API was not reached, waiting"
        attempt = f"attempt {event.count('attempt')} of {event.count('max_retries')}"
        return [
            Log(stream="system", text=f"{asked} {seconds:.1f} s ({reason}), {attempt}"),
            self._progress(f"waiting for the API ({reason})"),
        ]

    def _rate_limit(self, event: Fields) -> list[AgentEvent]:
        limit = event.fields("rate_limit_info") if "rate_limit_info" in event else event
        resets_at = limit.number("resetsAt")
        if resets_at is None or limit.text("status") == "allowed":
            return []
        self._wait_seconds = max(0.0, resets_at - self._now().timestamp())
        return [Log(stream="system", text=f"the API's limit is reached; it resets in {self._wait_seconds:.0f} s")]

    def _permission_denied(self, event: Fields) -> list[AgentEvent]:
        self._denied.add(event.text("tool_use_id"))
        reason = abbreviated(event.text("message"))
        return [Log(stream="system", text=f"✗ {event.text('tool_name')} was not allowed: {reason}")]

    def _assistant(self, event: Fields) -> list[AgentEvent]:
        message = event.fields("message")
        self._api_error = event.text("error") or self._api_error
        self._turns[message.text("id")] = _usage(message.fields("usage"))
        stream: Stream = "system" if event.is_true("is_api_error_message") else "agent"
        events: list[AgentEvent] = []
        for block in message.objects("content"):
            match block.text("type"):
                case "text":
                    events += log_lines(stream, block.text("text"))
                case "tool_use":
                    call = described_call(block.text("name"), block.fields("input"), self._directory)
                    events += [Log(stream="agent", text=f"→ {call}"), self._progress(call)]
        return events

    def _user(self, event: Fields) -> list[AgentEvent]:
        return [
            self._tool_result(block)
            for block in event.fields("message").objects("content")
            if block.text("type") == "tool_result" and block.text("tool_use_id") not in self._denied
        ]

    def _tool_result(self, block: Fields) -> AgentEvent:
        mark = "✗" if block.is_true("is_error") else "←"
        return Log(stream="agent", text=f"{mark} {abbreviated(block.spoken('content')) or 'done'}")

    def _take_result(self, event: Fields) -> list[AgentEvent]:
        self._result = event
        denials = event.objects("permission_denials")
        if not denials:
            return []
        tools = ", ".join(sorted({denial.text("tool_name") for denial in denials}))
        advice = "name them in parameters.allowed_tools, or choose another parameters.permission_mode"
        return [Log(stream="system", text=f"{len(denials)} tool calls were not allowed ({tools}); {advice}")]

    def _progress(self, step: str) -> Progress:
        return Progress(current_step=step, details={"turns": len(self._turns)})


def _usage(fields: Fields) -> Usage:
    read = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return Usage(
        input_tokens=sum(fields.count(name) for name in read),
        output_tokens=fields.count("output_tokens"),
    )


def _value(result: Fields) -> dict[str, Any]:
    value: dict[str, Any] = {
        "text": result.text("result"),
        "session_id": result.text("session_id"),
        "num_turns": result.count("num_turns"),
    }
    denials = [
        {
            "tool_name": denial.text("tool_name"),
            "call": described_call(denial.text("tool_name"), denial.fields("tool_input"), ""),
        }
        for denial in result.objects("permission_denials")
    ]
    return value | ({"permission_denials": denials} if denials else {})
