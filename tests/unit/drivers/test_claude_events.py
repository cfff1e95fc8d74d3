"""Lines of the Claude Code CLI as events, and its results as outcomes."""

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codefleet.domain.outcomes import Failed, Success, Usage
from codefleet.domain.retry import ErrorClass
from codefleet.execution.agent_output import AgentEnd
from codefleet.execution.drivers import Log, Progress, Session
from codefleet.execution.supervisor import Exit
from services.executor_claude.cli_events import ClaudeOutput

NOW = datetime(2026, 11, 1, tzinfo=UTC)
END = AgentEnd(exit=Exit(exit_code=0, reason="exit"))
COMPLETED = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "terminal_reason": "completed",
    "result": "Done",
    "session_id": "s",
    "num_turns": 2,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    [
        *(
            "message",
            "content",
            "id",
            "usage",
            "error",
            "error_status",
            "retry_delay_ms",
            "rate_limit_info",
            "resetsAt",
        ),
        *(
            "cwd",
            "session_id",
            "model",
            "permission_denials",
            "tool_input",
            "tool_name",
            "result",
            "errors",
            "num_turns",
        ),
        *("terminal_reason", "is_error", "api_error_status", "total_cost_usd", "input", "name", "text", "input_tokens"),
    ]
)
blocks = st.fixed_dictionaries({"type": st.sampled_from(["text", "tool_use", "tool_result"])}) | json_values
values = json_values | st.lists(blocks, max_size=3) | st.dictionaries(names, json_values | st.lists(blocks, max_size=2))
events = st.builds(
    lambda kind, subtype, rest: {"type": kind, "subtype": subtype, **rest},
    st.sampled_from(["system", "assistant", "user", "result", "rate_limit_event", "new"]),
    st.sampled_from(["init", "api_retry", "permission_denied", "success", "error_max_turns", ""]),
    st.dictionaries(names, values, max_size=6),
)


def reader(*lines: object) -> ClaudeOutput:
    output = ClaudeOutput(now=lambda: NOW)
    for line in lines:
        output.read(line if isinstance(line, str) else json.dumps(line))
    return output


def logged(*lines: object) -> list[str]:
    output = ClaudeOutput(now=lambda: NOW)
    found = [event for line in lines for event in output.read(line if isinstance(line, str) else json.dumps(line))]
    return [event.text for event in found if isinstance(event, Log)]


def assistant(*content: object, **fields: object) -> dict[str, object]:
    return {"type": "assistant", "message": {"id": "m", "content": list(content)}, **fields}


@given(st.lists(st.text() | json_values.map(json.dumps) | events.map(json.dumps), max_size=5))
def test_no_line_whatever_makes_it_fail(lines):
    output = reader(*lines)

    outcome = output.outcome(END)
    msgspec.json.encode([outcome, output.usage()])
    assert output.usage().input_tokens >= 0
    assert isinstance(outcome, Success | Failed)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a":' * 100_000, '"\ud800"', '{"type": "result"', "1e999", "{}x"])
def test_what_no_parser_likes_is_a_line_of_stdout(line):
    assert ClaudeOutput().read(line) == [Log(stream="stdout", text=line)]


@given(st.dictionaries(names, json_values), st.sampled_from(["success", "error_max_turns", "new"]))
def test_only_a_completed_success_without_an_error_is_a_success(fields, subtype):
    result = {"type": "result", "subtype": subtype, **fields}

    completed = fields.get("terminal_reason") == "completed" and fields.get("is_error") is not True
    assert isinstance(reader(result).outcome(END), Success) == (subtype == "success" and completed)


def test_a_session_is_named():
    line = {"type": "system", "subtype": "init", "session_id": "s", "model": "m", "cwd": "/w"}

    assert ClaudeOutput().read(json.dumps(line)) == [Session(session_id="s", model="m")]


def test_a_tool_call_is_told_from_the_work_directory_on():
    init = {"type": "system", "subtype": "init", "session_id": "s", "cwd": "/w"}
    output = reader(init)

    events = output.read(
        json.dumps(assistant({"type": "tool_use", "name": "Write", "input": {"file_path": "/w/a/b", "content": "x"}}))
    )

    assert events == [
        Log(stream="agent", text="→ Write a/b"),
        Progress(current_step="Write a/b", details={"turns": 1}),
    ]


def test_what_the_agent_says_is_logged_line_by_line():
    assert logged(assistant({"type": "text", "text": "\n\nfirst\n\nsecond  \n"})) == ["first", "", "second"]


def test_long_commands_and_results_are_abbreviated():
    lines = logged(
        assistant({"type": "tool_use", "name": "Bash", "input": {"command": "cat <<E\n1\n2\nE"}}),
        {"type": "user", "message": {"content": [{"type": "tool_result", "content": "x" * 300}]}},
        {
            "type": "user",
            "message": {
                "content": [{"type": "tool_result", "is_error": True, "content": [{"type": "text", "text": "a\nb"}]}]
            },
        },
    )

    assert lines == ["→ Bash cat <<E … (3 more lines)", f"← {'x' * 200}…", "✗ a … (1 more line)"]


def test_a_denied_call_is_told_once():
    lines = logged(
        {"type": "system", "subtype": "permission_denied", "tool_name": "Bash", "tool_use_id": "t", "message": "no"},
        {"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "t", "content": "no"}]}},
    )

    assert lines == ["✗ Bash was not allowed: no"]


def test_retries_of_the_api_are_told_with_their_wait():
    retry = {"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 2, "retry_delay_ms": 2040}

    assert logged(
        {**retry, "error_status": 429, "error": "rate_limit"}, {**retry, "error_status": None, "error": "unknown"}
    ) == [
        "the API asked to wait 2.0 s (429 rate_limit), attempt 1 of 2",
        "the API was not reached, waiting 2.0 s (unknown), attempt 1 of 2",
    ]


def test_the_reset_of_a_limit_is_when_to_come_back():
    failure = {**COMPLETED, "is_error": True, "terminal_reason": "api_error", "api_error_status": 429}
    limit = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": NOW.timestamp() + 90}}

    assert reader(limit, failure).outcome(END).retry_after_seconds == 90


def test_a_limit_that_still_allows_is_not_worth_a_word():
    limit = {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed", "resetsAt": NOW.timestamp() + 90}}

    assert logged(limit) == []


def test_unknown_types_are_mentioned_once_each():
    lines = [{"type": "new"}, {"type": "new"}, {"type": "system", "subtype": "newer"}, {}]

    assert [line.rpartition(": ")[2] for line in logged(*lines)] == ["new", "system/newer", "without a type"]


def test_usage_counts_cached_tokens_as_input():
    usage = {
        "input_tokens": 1,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 300,
        "output_tokens": 4,
    }

    assert reader({**COMPLETED, "usage": usage, "total_cost_usd": 0.5}).usage() == Usage(
        input_tokens=321, output_tokens=4, cost_usd=0.5
    )


def test_without_a_result_the_turns_tell_what_was_read():
    turn = {"type": "assistant", "message": {"id": "m1", "usage": {"input_tokens": 10, "output_tokens": 1}}}
    other = {"type": "assistant", "message": {"id": "m2", "usage": {"input_tokens": 20, "output_tokens": 1}}}

    assert reader(turn, turn, other).usage() == Usage(input_tokens=30, output_tokens=2)


@pytest.mark.parametrize(
    ("fields", "error_class", "code"),
    [
        ({"subtype": "error_max_turns", "errors": ["too many"]}, ErrorClass.CONFIGURATION, "MAX_TURNS_REACHED"),
        ({"subtype": "error_max_budget_usd"}, ErrorClass.CONFIGURATION, "MAX_BUDGET_REACHED"),
        (
            {"subtype": "error_during_execution", "errors": ["No conversation found with session ID: x"]},
            ErrorClass.VALIDATION,
            "SESSION_NOT_FOUND",
        ),
        ({"subtype": "error_during_execution", "errors": ["?"]}, ErrorClass.TEMPORARY, "AGENT_FAILED"),
        ({"subtype": "success", "terminal_reason": "aborted_streaming"}, ErrorClass.TEMPORARY, "STOPPED"),
        ({"subtype": "success", "terminal_reason": "prompt_too_long"}, ErrorClass.VALIDATION, "PROMPT_TOO_LONG"),
        ({"subtype": "success", "terminal_reason": "api_error"}, ErrorClass.CONNECTION, "API_CONNECTION_FAILED"),
        ({"subtype": "success"}, ErrorClass.TEMPORARY, "AGENT_FAILED"),
    ],
)
def test_what_is_no_success_has_a_class_and_a_code(fields, error_class, code):
    outcome = reader({"type": "result", "is_error": True, **fields}).outcome(END)

    assert (outcome.error_class, outcome.code) == (error_class, code)
    assert outcome.message


def test_an_overload_within_a_stream_is_known_by_its_word():
    failure = {**COMPLETED, "is_error": True, "terminal_reason": "api_error", "api_error_status": None}

    outcome = reader(assistant(error="overloaded"), failure).outcome(END)

    assert outcome.error_class == ErrorClass.SERVICE_UNAVAILABLE
