"""Tables and pages, as a terminal and as a pipe get them."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from codefleet_cli import render
from codefleet_cli.errors import RefusedError, UnexpectedAnswerError
from codefleet_cli.model import Task, convert, result_text

NOW = datetime(2026, 1, 1, 10, 5, tzinfo=UTC)
TASK = {
    "task_id": "0192f0c1-0000-7000-8000-000000000001",
    "status": "running",
    "name": "[red]evil[/red]\x1b[2J",
    "executor": "claude",
    "priority": 5,
    "created_at": "2026-01-01T10:00:00Z",
    "started_at": "2026-01-01T10:04:00Z",
    "progress": {"percentage": 41.7, "current_step": "reading", "total_steps": None, "details": {}},
    "attempts": [
        {
            "number": 1,
            "worker_id": "w1",
            "started_at": "2026-01-01T10:01:00Z",
            "ended_at": "2026-01-01T10:02:30Z",
            "outcome": "failure",
            "error": {"class": "connection", "code": "C", "message": "gone", "advice": ""},
            "usage": None,
        },
        {"number": 2, "started_at": "2026-01-01T10:04:00Z"},
    ],
    "command": "make",
    "args": ["test"],
    "usage": {"cpu_seconds": 3.0, "max_memory_bytes": 2**28},
    "unknown_field": 1,
}


def shown(renderable, *, terminal=False, width=200):
    output = io.StringIO()
    colours = "standard" if terminal else None
    Console(file=output, force_terminal=terminal, width=width, markup=False, color_system=colours).print(renderable)
    return output.getvalue()


def task(**fields):
    return convert(TASK | fields, Task)


def test_a_row_of_the_table():
    [_, row] = shown(render.task_table([task()], NOW)).splitlines()
    assert row.split() == ["0192f0c1", "[red]evil[/red]", "running", "claude", "5", "5m", "1m00s", "42%"]


def test_where_room_is_short_the_name_gives_way():
    [_, row] = shown(render.task_table([task(name="long name " * 9)], NOW), terminal=True, width=75).splitlines()
    assert "0192f0c1" in row
    assert "…" in row
    assert "42%" in row


def test_states_are_coloured_and_foreign_escapes_are_not():
    coloured = shown(render.task_table([task(status="failure")], NOW), terminal=True)
    assert "\x1b[31mfailure" in coloured
    assert "\x1b[2J" not in coloured


def test_the_page_has_attempts_and_resources_and_leaves_out_what_is_not_there():
    page = shown(render.task_page(task(), NOW))
    for words in ("make test", "connection: gone", "1m30s", "42% reading", "3.0s of CPU", "256 MiB at most"):
        assert words in page
    for words in ("Prompt", "Result", "Timeline", "tags", "None"):
        assert words not in page


def test_the_page_keeps_the_lines_of_a_prompt():
    assert "one\ntwo" in shown(render.task_page(task(prompt="one\ntwo\n"), NOW))


@pytest.mark.parametrize(
    ("result", "words"),
    [(None, ""), ("words", "words"), ({"text": "said", "turns": 3}, "said"), ({"a": [1]}, '{"a":[1]}'), (7, "7")],
)
def test_results_as_text(result, words):
    assert result_text(result) == words


def test_ids_are_as_long_as_they_must_be():
    assert render.id_length([]) == 8
    assert render.id_length(["0192f0c1-0000", "0192f0c1-0001", "0192f0c1-0001"]) == 13
    assert render.id_length(["a1", "b2"]) == 8


def test_the_summary_says_only_what_is_known():
    ended = task(status="cancelled", started_at=None, usage=None)
    assert shown(render.summary(ended, NOW)) == f"✗ cancelled · {TASK['task_id']}\n"


def test_a_table_of_anything():
    items = [{"name": "q", "slots": 3, "labels": ["a", "b"]}, {"name": "r", "extra": {"x": 1}, "slots": None}]
    head, first, second = shown(render.plain_table(items, NOW)).splitlines()
    assert head.split() == ["NAME", "SLOTS", "LABELS", "EXTRA"]
    assert first.split() == ["q", "3", "a,", "b", "-"]
    assert second.split() == ["r", "-", "-", '{"x":1}']


def test_times_in_a_table_are_ages_and_leave_no_blanks_at_the_end_of_a_line():
    items = [
        {"id": "w1", "heartbeat_at": "2026-01-01T10:04:58Z"},
        {"id": "w2", "heartbeat_at": "2026-01-01T09:00:00.123456Z"},
        {"id": "w3", "heartbeat_at": None},
    ]
    lines = shown(render.plain_table(items, NOW)).splitlines()
    assert [line.split() for line in lines] == [
        ["ID", "HEARTBEAT"],
        ["w1", "2s", "ago"],
        ["w2", "1h", "ago"],
        ["w3", "-"],
    ]
    assert lines == [line.rstrip() for line in lines]


def test_data_of_another_shape_is_refused():
    with pytest.raises(UnexpectedAnswerError, match="does not fit"):
        convert({"task_id": 1}, Task)


@pytest.mark.parametrize(
    ("message", "details", "line"),
    [
        ("timeout: too long", {"field": "timeout", "reason": "too long"}, "timeout: too long"),
        ("not valid", {"field": "timeout", "reason": "too long"}, "timeout: not valid: too long"),
        ("Not found", {}, "Not found: ask"),
        ("bad \x1b[2Jnews", {"advice": "go\nhome"}, "bad news: go home"),
    ],
)
def test_errors_of_the_server_are_one_line(message, details, line):
    body = {"error": {"code": "X", "message": message, "details": details}}
    assert RefusedError(422, body, advice="ask" if not details else "").format_message() == line
