"""`ls`, `show`, `logs`, `cancel`, `queues`, `workers`."""

import json

import pytest

from tests.integration.cli.fleet_double import Plan

FIRST = "aaaaaaaa-0000-7000-8000-000000000001"
SECOND = "aaaaaaaa-0000-7000-8000-000000000002"
OTHER = "bbbbbbbb-0000-7000-8000-000000000003"


@pytest.fixture
def three(fleet):
    fleet.add(task_id=FIRST, name="first")
    fleet.add(task_id=SECOND, name="[bold]second\x1b[2J", status="running", completed_at=None, duration=None)
    fleet.plan = Plan(outcome="failure", error={"class": "validation", "code": "X", "message": "bad", "advice": None})
    fleet.add(task_id=OTHER, name="third", result=None, prompt="p" * 3000, tags=["a", "b"])


@pytest.mark.usefixtures("three")
def test_ls_shows_a_line_for_each_task(codefleet):
    head, *rows = codefleet("ls").stdout.splitlines()
    assert head.split() == ["ID", "NAME", "STATUS", "EXECUTOR", "PRIO", "AGE", "DURATION", "PROGRESS"]
    assert [row.split()[:3] for row in rows] == [
        [OTHER, "third", "failure"],
        [SECOND, "[bold]second", "running"],
        [FIRST, "first", "success"],
    ]


def test_ls_abbreviates_ids_as_far_as_they_stay_apart(codefleet, fleet):
    for digit in "12":
        fleet.add(task_id=f"{digit}2345678-0000-7000-8000-000000000001")
    ids = [row.split()[0] for row in codefleet("ls").stdout.splitlines()[1:]]
    assert ids == ["22345678", "12345678"]


def test_ls_sends_its_filters(codefleet, fleet):
    filters = ["--status", "pending,running", "--status", "retry", "--project", "p", "--type", "t", "--tag", "x"]
    result = codefleet("ls", *filters, "--executor", "any", "--limit", "7")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no tasks\n")
    assert fleet.requests[0]["query"] == {
        "status": ["pending", "running", "retry"],
        "project_id": "p",
        "type": "t",
        "tag": "x",
        "executor": "any",
        "limit": "7",
    }


def test_ls_pages_as_far_as_asked(codefleet, fleet):
    for _ in range(230):
        fleet.add()
    assert len(codefleet.json("ls")["items"]) == 20
    assert len(codefleet.json("ls", "--limit", "130")["items"]) == 130
    whole = codefleet.json("ls", "--all")
    assert len({task["task_id"] for task in whole["items"]}) == 230
    assert (whole["total"], whole["has_more"], whole["next_cursor"]) == (230, False, None)
    assert "2 of 230" in codefleet("ls", "--limit", "2").stderr


@pytest.mark.usefixtures("three")
def test_show_has_everything(codefleet):
    shown = codefleet("show", "bbbbbb").stdout
    for words in (OTHER, "failure", "a, b", "1000 more characters", "cause 3", "validation: bad", "1.2k tokens in"):
        assert words in shown
    assert codefleet.json("show", OTHER)["task_id"] == OTHER


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("aaaaaaaa", "fits 2 tasks"),
        ("cccccc", "none of the 100 latest tasks"),
        ("aaaaa", "not a task id"),
        ("../../x", "not a task id"),
        ("cccccccc-0000-7000-8000-000000000001", "There is no task"),
    ],
)
def test_an_id_that_names_no_single_task_is_refused(codefleet, given, message):
    for command in ("show", "logs", "cancel"):
        result = codefleet(command, given)
        assert result.exit_code == 2
        assert message in result.stderr


def test_logs_come_whole_over_all_pages(codefleet, fleet):
    fleet.plan = Plan(lines=["one", "two\x1b[31m", "three", "four", "five"])
    fleet.add(task_id=FIRST)
    assert codefleet("logs", FIRST).stdout.split() == ["one", "two", "three", "four", "five"]
    assert codefleet("logs", "AAAAAAAA", "--after", "1000000002").stdout.split() == ["four", "five"]
    page = codefleet.json("logs", FIRST)
    assert len(page["items"]) == 5
    assert page["has_more"] is False


@pytest.mark.usefixtures("three")
def test_logs_can_be_followed(codefleet):
    assert codefleet("logs", "-f", FIRST).stdout.startswith("line 1\nline 2\n✓ success")
    lines = [json.loads(line) for line in codefleet("logs", "-f", OTHER, "--json").stdout.splitlines()]
    assert lines[-1]["task"]["task_id"] == OTHER
    assert codefleet("logs", "-f", OTHER).exit_code == 0


@pytest.mark.usefixtures("three")
def test_cancel_takes_several_and_tells_each(codefleet, fleet):
    result = codefleet("cancel", SECOND, FIRST, "bbbbbb", "--reason", "enough")
    assert result.exit_code == 2
    assert result.stdout == f"{SECOND} cancelled\n{OTHER} cancelled\n"
    assert "cannot move from success" in result.stderr
    assert fleet.tasks[OTHER]["reason"] == "enough"


@pytest.mark.usefixtures("three")
def test_cancel_with_json_answers_for_each(codefleet):
    result = codefleet("cancel", SECOND, FIRST, "--json")
    done, refused = json.loads(result.stdout)
    assert (result.exit_code, done["status"], refused["error"]["code"]) == (2, "cancelled", "ILLEGAL_TRANSITION")


def test_queues_and_workers_are_tables(codefleet, fleet):
    assert codefleet("queues").stdout.split() == ["NAME", "default"]
    head, row = codefleet("workers").stdout.splitlines()
    assert head.split() == ["WORKER_ID", "EXECUTOR", "STATE", "SLOTS"]
    assert row.split() == ["w1", "claude", "online", "3"]
    assert codefleet.json("workers")["items"] == fleet.workers
    fleet.workers = []
    assert codefleet("workers").stderr == "none\n"
