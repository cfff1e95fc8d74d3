"""Lines of the Cursor CLI as events, and its results as outcomes."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codefleet.domain.outcomes import Failed, Success, Usage
from codefleet.domain.retry import ErrorClass
from codefleet.execution.agent_output import AgentEnd
from codefleet.execution.drivers import Log
from codefleet.execution.supervisor import Exit
from services.executor_cursor.events import CursorOutput

END = AgentEnd(exit=Exit(exit_code=0, reason="exit"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    [
        *("message", "content", "tool_call", "args", "result", "success", "error", "rejected", "reason", "exitCode"),
        *("function", "arguments", "session_id", "cwd", "model", "usage", "inputTokens", "is_error", "text"),
    ]
)
values = st.recursive(json_values, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=4)
events = st.builds(
    lambda kind, subtype, rest: {"type": kind, "subtype": subtype, **rest},
    st.sampled_from(["system", "user", "assistant", "tool_call", "result", "thinking", "new"]),
    st.sampled_from(["init", "started", "completed", "success", ""]),
    st.dictionaries(names, values, max_size=5),
)


def read(*lines: object) -> tuple[CursorOutput, list[str]]:
    output = CursorOutput()
    found = [event for line in lines for event in output.read(line if isinstance(line, str) else json.dumps(line))]
    return output, [event.text for event in found if isinstance(event, Log)]


def completed_call(result: object, name: str = "shellToolCall") -> dict[str, object]:
    return {"type": "tool_call", "subtype": "completed", "tool_call": {name: {"args": {}, "result": result}}}


@given(st.lists(st.text() | json_values.map(json.dumps) | events.map(json.dumps), max_size=5))
def test_no_line_whatever_makes_it_fail(lines):
    output, _ = read(*lines)

    outcome = output.outcome(END)
    msgspec.json.encode([outcome, output.usage()])
    assert isinstance(outcome, Success | Failed)


@given(st.dictionaries(names, json_values), st.sampled_from(["success", "error", ""]))
def test_only_a_success_without_an_error_is_a_success(fields, subtype):
    output, _ = read({"type": "result", "subtype": subtype, **fields})

    assert isinstance(output.outcome(END), Success) == (subtype == "success" and fields.get("is_error") is not True)


@pytest.mark.parametrize(
    ("result", "line"),
    [
        ({"success": {"exitCode": 0, "stdout": "hi\n"}}, "← hi"),
        ({"success": {"exitCode": 2, "stderr": "oh"}}, "✗ exit code 2 oh"),
        ({"success": {}}, "← done"),
        ({"error": {"message": "no such file"}}, "✗ no such file"),
        ({"error": "no such file"}, "✗ no such file"),
        (None, "✗ failed"),
        ({"rejected": {"reason": "not today"}}, "✗ not allowed: not today"),
        ({"rejected": {}}, "✗ not allowed: no reason given"),
    ],
)
def test_the_end_of_a_call_is_told_in_one_line(result, line):
    assert read(completed_call(result))[1] == [line]


def test_calls_are_told_in_both_documented_shapes():
    by_tool = {"readToolCall": {"args": {"path": "/w/a"}}}
    by_function = {"function": {"name": "grep", "arguments": '{"pattern": "x+"}'}}
    _, lines = read(
        {"type": "system", "subtype": "init", "cwd": "/w"},
        *({"type": "tool_call", "subtype": "started", "tool_call": call} for call in (by_tool, by_function)),
    )

    assert lines == ["→ Read a", "→ grep x+"]


def test_usage_is_reported_in_camel_case_and_counts_cached_tokens_as_input():
    usage = {"inputTokens": 1, "outputTokens": 2, "cacheReadTokens": 30, "cacheWriteTokens": 400}
    output, _ = read({"type": "result", "subtype": "success", "usage": usage})

    assert output.usage() == Usage(input_tokens=431, output_tokens=2)


def test_a_result_that_is_an_error_is_classified_by_its_words():
    output, _ = read({"type": "result", "subtype": "error", "is_error": True, "result": "resource_exhausted"})

    assert output.outcome(END).error_class == ErrorClass.RATE_LIMIT


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (AgentEnd(exit=Exit(exit_code=None, signal=9, reason="exit"), stderr=("401",)), "AGENT_KILLED"),
        (AgentEnd(exit=Exit(exit_code=1, reason="exit"), stopped=True), "STOPPED"),
        (AgentEnd(exit=Exit(reason="lost")), "AGENT_KILLED"),
        (AgentEnd(exit=Exit(reason="lease")), "LEASE_ENDED"),
    ],
)
def test_words_do_not_count_where_a_signal_speaks(end, code):
    assert CursorOutput().outcome(end).code == code
