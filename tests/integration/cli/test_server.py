"""Finding the server, and what is said when it is not there or not ours."""

import json
import socket
import subprocess
import sys
import time

import pytest

from codefleet_cli.commands import local
from tests.integration.cli.fleet_double import API_KEY


@pytest.fixture
def closed_url():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_without_a_server_one_line_says_how_to_get_one(codefleet):
    result = codefleet("ls", CODEFLEET_URL="", CODEFLEET_API_KEY="")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "codefleet up" in result.stderr
    assert "CODEFLEET_URL" in result.stderr


def test_a_connection_file_above_is_found(codefleet, fleet, tmp_path, monkeypatch):
    (tmp_path / ".codefleet").mkdir()
    content = {"url": fleet.url, "api_key": API_KEY, "mongo_url": "", "redis_url": ""}
    (tmp_path / ".codefleet" / "connection.json").write_text(json.dumps(content))
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert codefleet("ls", CODEFLEET_URL="", CODEFLEET_API_KEY="").exit_code == 0


@pytest.mark.parametrize("command", [["ls"], ["run", "x"], ["logs", "-f", "11111111-1111-7111-8111-111111111111"]])
def test_an_unreachable_server_is_exit_3_and_one_line(codefleet, closed_url, command):
    result = codefleet(*command, "--url", closed_url)
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 1
    assert closed_url in result.stderr
    result = codefleet(*command, "--url", closed_url, "--json")
    assert (result.exit_code, json.loads(result.stdout)["error"]["code"]) == (3, "UNREACHABLE")


def test_a_wrong_key_is_exit_2_with_advice_and_the_key_is_not_shown(codefleet):
    result = codefleet("ls", "--api-key", "cf_wrong_secret")
    assert result.exit_code == 2
    assert "CODEFLEET_API_KEY" in result.stderr
    assert "cf_wrong_secret" not in result.output


@pytest.mark.parametrize("answer", [(200, b"<html>"), (404, b"nope"), (200, {"tasks": []}), (500, b"oops")])
def test_a_server_that_is_not_codefleet_is_named_as_such(codefleet, fleet, answer):
    fleet.answers.append(answer)
    result = codefleet("ls")
    assert result.exit_code == 3
    assert "without codefleet's envelope" in result.stderr


def test_an_answer_of_another_shape_is_no_traceback(codefleet, fleet):
    fleet.add(priority={"level": "high"})
    result = codefleet("ls")
    assert result.exit_code == 3
    assert "does not fit" in result.stderr


def test_doctor_passes_on_a_healthy_server(codefleet, fleet):
    result = codefleet("doctor")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("✓") == 6
    assert fleet.sent("POST")[0]["body"]["type"] == "diagnostic"
    assert codefleet.json("doctor")["ok"] is True


def test_doctor_says_what_is_wrong_and_what_to_do(codefleet, fleet):
    fleet.workers = [{"worker_id": "w1", "executor": "claude", "state": "lost"}]
    fleet.health = {
        "status": "degraded",
        "checks": {"redis": {"status": "down", "reason": "away", "advice": "start it"}},
    }
    fleet.plan.outcome = "failure"
    result = codefleet("doctor")
    assert result.exit_code == 1
    assert result.stdout.count("✗") == 3
    for words in ("redis: away. start it.", "no worker is online", "codefleet show"):
        assert words in result.stdout


def test_doctor_cancels_a_task_that_does_not_end(codefleet, fleet, monkeypatch):
    monkeypatch.setattr("codefleet_cli.commands.doctor._TASK_SECONDS", 0.2)
    fleet.plan.outcome = "running"
    result = codefleet("doctor", "--json")
    check = json.loads(result.stdout)["checks"][-1]
    assert (result.exit_code, check["name"], check["ok"]) == (1, "task", False)
    assert "scheduler" in check["advice"]
    assert fleet.sent("POST", "/cancel")


def test_doctor_stops_at_a_server_that_is_away(codefleet, closed_url):
    result = codefleet("doctor", "--url", closed_url)
    assert result.exit_code == 1
    assert "not checked: authentication, health, workers, task" in result.stdout
    result = codefleet("doctor", CODEFLEET_URL="")
    assert (result.exit_code, result.stdout[0]) == (1, "✗")


@pytest.mark.parametrize(
    ("command", "module"), [("up", ["codefleet.embedded", "up"]), ("demo", ["codefleet_testkit.demo"])]
)
def test_up_and_demo_become_the_servers_own_program(codefleet, monkeypatch, command, module):
    started = []
    monkeypatch.setattr(local.os, "execv", lambda path, argv: started.append((path, argv)))
    assert codefleet(command, "--help", "--port", "1", "--", "-x").exit_code == 0
    assert started == [(sys.executable, [sys.executable, "-P", "-m", *module, "--help", "--port", "1", "--", "-x"])]


def test_up_without_the_server_says_what_to_install(codefleet, monkeypatch):
    monkeypatch.setattr(local, "_SERVER", ("no_such_module_here",))
    result = codefleet("up")
    assert (result.exit_code, "pip install 'codefleet[all]'" in result.stderr) == (2, True)


def test_help_loads_neither_http_nor_tables_and_no_server():
    program = (
        "import sys; from codefleet_cli.main import cli; cli(['--help'], standalone_mode=False);"
        "print(sorted({'httpx', 'rich', 'msgspec', 'asyncio', 'codefleet', 'services'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.endswith("[]\n")
    assert "Exit codes:" in shown.stdout
    assert "_CODEFLEET_COMPLETE" in shown.stdout


def test_help_is_quick():
    def seconds():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "codefleet_cli", "--help"], capture_output=True, check=True)
        return time.perf_counter() - began

    # The best of a few: other tests share the machine.
    assert min(seconds() for _ in range(5)) < 0.25
