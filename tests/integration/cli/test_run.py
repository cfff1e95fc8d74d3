"""`run` and `submit`: what is sent, what is shown, and the exit code."""

import json
import os
import pty
import signal
import subprocess

import pytest

from tests.integration.cli.fleet_double import DEADLINE_SECONDS, Plan, error_body


def events(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_run_shows_log_moves_and_summary(codefleet):
    result = codefleet("run", "fix the tests")
    assert result.exit_code == 0
    log, summary = result.stdout.split("✓", 1)
    assert log == "line 1\nline 2\n"
    assert "success · 2.0s · 1.2k tokens in, 56 out · $0.0123" in summary
    assert summary.endswith("all done\n")
    assert "running (attempt 1, cause 3)" in result.stderr
    assert "50% step one" in result.stderr
    assert "\x1b" not in result.output


@pytest.mark.parametrize(("outcome", "code"), [("success", 0), ("failure", 1), ("cancelled", 4), ("timeout", 5)])
def test_the_exit_code_is_the_outcome(codefleet, fleet, outcome, code):
    fleet.plan = Plan(outcome=outcome)
    assert codefleet("run", "x").exit_code == code


def test_a_failure_shows_its_error_and_advice(codefleet, fleet):
    error = {"class": "authentication", "code": "NO_KEY", "message": "no key", "advice": "log in"}
    fleet.plan = Plan(outcome="failure", error=error, result=None)
    result = codefleet("run", "x")
    assert "✗ failure" in result.stdout
    assert "authentication: no key\nadvice: log in\n" in result.stdout


def test_run_with_json_prints_one_event_a_line(codefleet):
    result = codefleet("run", "x", "--json")
    kinds = [event["event"] for event in events(result)]
    assert kinds[0] == "submitted"
    assert kinds[-1] == "end"
    assert sorted(kinds[1:-1]) == ["log"] * 2 + ["progress"] + ["state"] * 5
    assert events(result)[-1]["task"]["status"] == "success"
    assert [event["log"]["text"] for event in events(result) if event["event"] == "log"] == ["line 1", "line 2"]


def test_every_option_is_sent(codefleet, fleet, tmp_path):
    options = ["-e", "cursor", "-t", "agent", "-d", "sub", "--name", "n", "--priority", "8", "--project", "p1"]
    options += ["--tag", "a", "--tag", "b", "-p", "model=opus", "-p", "max_turns=3", "--timeout", "60"]
    result = codefleet("submit", "do it", *options, "--max-retries", "0", "--idempotency-key", "k1")
    [request] = fleet.sent("POST")
    assert request["body"] == {
        "prompt": "do it",
        "executor": "cursor",
        "type": "agent",
        "work_directory": str(tmp_path / "sub"),
        "name": "n",
        "priority": 8,
        "project_id": "p1",
        "tags": ["a", "b"],
        "parameters": {"model": "opus", "max_turns": 3},
        "timeout": 60.0,
        "max_retries": 0,
    }
    assert request["headers"]["Idempotency-Key"] == "k1"
    assert result.stdout == f"{next(iter(fleet.tasks))}\n"


def test_the_directory_is_the_current_one_for_agents_and_none_for_others(codefleet, fleet, tmp_path):
    codefleet("submit", "x", "--priority", "urgent")
    codefleet("submit", "-t", "diagnostic")
    agent, diagnostic = [request["body"] for request in fleet.sent("POST")]
    assert agent == {"prompt": "x", "priority": "urgent", "work_directory": str(tmp_path)}
    assert diagnostic == {"type": "diagnostic"}


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_the_prompt_comes_from_standard_input(codefleet, fleet, arguments):
    assert codefleet("submit", *arguments, stdin="first\nsecond ü\n").exit_code == 0
    assert fleet.sent("POST")[0]["body"]["prompt"] == "first\nsecond ü"


def test_detach_and_json_submit_print_and_do_not_follow(codefleet, fleet):
    assert codefleet("run", "x", "--detach").stdout.strip() in fleet.tasks
    assert codefleet.json("submit", "x")["task_id"] in fleet.tasks
    assert not fleet.sent("GET")


def test_a_file_makes_the_task_and_options_override_it(codefleet, fleet, tmp_path):
    (tmp_path / "task.json").write_text('{"prompt": "p", "name": "n", "tags": ["t"], "scheduled_at": "later"}')
    codefleet("submit", "--file", "task.json", "--name", "other")
    codefleet("submit", "--file", "-", stdin='{"command": "ls", "args": ["-l"]}')
    first, second = [request["body"] for request in fleet.sent("POST")]
    assert (first["name"], first["tags"], first["scheduled_at"]) == ("other", ["t"], "later")
    assert (second["command"], second["args"]) == ("ls", ["-l"])


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([], "", "standard input is empty"),
        (["-"], b"\xff\xfe", "not UTF-8"),
        (["x", "-p", "novalue"], "", "not KEY=JSON"),
        (["x", "-p", 'a={"b":'], "", "not JSON"),
        (["--file", "missing.json"], "", "No such file"),
        (["--file", "-"], "[1]", "not a JSON object"),
        (["--file", "-"], "{", "not JSON"),
        (["-", "--file", "-"], "{}", "cannot both"),
        (["-"], "x" * (2 * 2**20 + 1), "more than 2 MiB"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_one_line(codefleet, fleet, arguments, stdin, message):
    result = codefleet("submit", *arguments, stdin=stdin)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not fleet.requests


def test_a_refused_field_is_named_with_its_advice(codefleet, fleet):
    body = error_body("VALIDATION_ERROR", "not acceptable", field="timeout", reason="too long", advice="use less")
    fleet.answers += [(422, body), (422, body)]
    result = codefleet("submit", "x")
    assert (result.exit_code, result.stderr) == (2, "codefleet: timeout: not acceptable: too long: use less\n")
    result = codefleet("submit", "x", "--json")
    assert (result.exit_code, json.loads(result.stdout), result.stderr) == (2, body, "")


def test_a_submit_whose_answer_was_lost_makes_one_task(codefleet, fleet):
    fleet.lost_answers = 1
    result = codefleet("submit", "x")
    assert result.exit_code == 0
    assert len(fleet.tasks) == 1
    assert len({request["headers"]["Idempotency-Key"] for request in fleet.sent("POST")}) == 1


def test_a_busy_server_is_asked_again(codefleet, fleet):
    fleet.answers.append((503, error_body("UNAVAILABLE", "busy"), [("Retry-After", "0")]))
    fleet.answers.append((502, b"<html>Bad gateway</html>"))
    assert codefleet("submit", "x").exit_code == 0


def test_a_server_that_asks_to_wait_long_is_believed(codefleet, fleet):
    fleet.answers.append((429, error_body("RATE_LIMITED", "too many requests"), [("Retry-After", "60")]))
    result = codefleet("submit", "x")
    assert (result.exit_code, len(fleet.requests)) == (2, 1)


def test_ctrl_c_detaches_and_says_how_to_go_on(codefleet, fleet):
    fleet.hold = True
    process = codefleet.start("run", "x", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert fleet.reached.wait(DEADLINE_SECONDS)
    assert process.stdout.readline() == "line 1\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    [task_id] = fleet.tasks
    assert process.returncode == 130
    assert f"codefleet logs -f {task_id}" in errors
    assert f"codefleet cancel {task_id}" in errors
    assert "Traceback" not in errors
    assert not fleet.sent("POST", "/cancel")


def on_a_terminal(codefleet, *arguments):
    ours, theirs = pty.openpty()
    process = codefleet.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = bytearray()
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    return process.wait(DEADLINE_SECONDS), shown.decode()


def test_on_a_terminal_there_is_colour_but_none_of_the_tasks_own(codefleet, fleet, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    fleet.plan = Plan(lines=["\x1b]0;owned\x07[red]plain\x1b[2J[/red]", "second\x9b31m"], result="\x1b[2Jall\x07 done")
    code, shown = on_a_terminal(codefleet, "run", "x")
    assert code == 0
    assert "[red]plain[/red]\r\n" in shown
    assert "second\r\n" in shown
    assert "owned" not in shown
    assert "\x1b[2J" not in shown
    assert "\x1b[32m✓ success" in shown


def test_no_color_is_heeded(codefleet, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    _, shown = on_a_terminal(codefleet, "run", "x")
    assert "✓ success" in shown
    assert "\x1b[32m" not in shown


def test_without_a_prompt_a_terminal_is_not_waited_for(codefleet):
    code, shown = on_a_terminal(codefleet, "run")
    assert code == 2
    assert "no prompt" in shown
