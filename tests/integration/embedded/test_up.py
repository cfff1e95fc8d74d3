"""`codefleet up` seen from outside: what it prints, what it leaves, and what survives."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
from pymongo import MongoClient


def test_ready_line_and_connection_file_appear_when_every_service_is_ready(up):
    stack = up(scale={"executor-claude": 2, "executor-cursor": 0})
    line = stack.wait_ready()
    connection = stack.connection()
    folder = stack.data_dir
    assert line == f"ready {connection['url']} (data in {folder}, key in {folder / 'connection.json'})"
    assert set(connection) == {"url", "api_key", "mongo_url", "redis_url"}
    assert re.fullmatch(r"cf_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", connection["api_key"])
    assert (folder / "connection.json").stat().st_mode & 0o777 == 0o600
    assert len(stack.ready_events("executor-claude")) == 2
    assert not stack.ready_events("executor-cursor")
    assert "plain words" in stack.lines


def test_services_get_their_settings_and_only_the_api_gets_the_key(up):
    stack = up()
    stack.wait_ready()
    connection = stack.connection()
    api = stack.ready_events("api")[0]["environ"]
    monitor = stack.ready_events("monitor")[0]["environ"]
    assert api["CODEFLEET_BOOTSTRAP_API_KEY"] == connection["api_key"]
    assert "CODEFLEET_BOOTSTRAP_API_KEY" not in monitor
    assert connection["url"].endswith(f":{api['CODEFLEET_PORT']}")
    assert monitor["CODEFLEET_MONGO_URL"] == connection["mongo_url"]
    assert monitor["CODEFLEET_REDIS_URL"] == connection["redis_url"]
    assert monitor["CODEFLEET_DATA_DIR"] == str(stack.data_dir)
    assert monitor["CODEFLEET_MONITOR_PORT"] != monitor["CODEFLEET_PORT"]
    assert str(stack.data_dir.parent) in monitor["CODEFLEET_WORK_ROOTS"].split(os.pathsep)
    assert monitor["CODEFLEET_LOG_FORMAT"] == "json"


def test_a_crashed_service_comes_back_with_growing_delays(up, until):
    stack = up()
    stack.wait_ready()
    for life in (1, 2):
        os.kill(stack.ready_events("scheduler")[-1]["pid"], signal.SIGKILL)
        until(lambda life=life: len(stack.ready_events("scheduler")) == life + 1)
    ends = [event for line in stack.lines if (event := _event(line)).get("event") == "child ended"]
    assert [event["restart_seconds"] for event in ends] == [0.2, 0.4]
    assert all(event["child"] == "scheduler" for event in ends)


def test_sigterm_ends_everything_even_a_service_that_ignores_it(up, gone):
    stack = up(moods={"monitor": "stubborn", "scheduler": "parent"})
    stack.wait_ready()
    family = stack.family()
    assert len(family) == 9
    began = time.monotonic()
    code, errors = stack.finish(signal.SIGTERM)
    assert (code, errors) == (0, "")
    assert time.monotonic() - began < 10
    assert all(gone(process) for process in family)


def test_a_second_signal_kills_at_once(up, until, gone):
    stack = up(moods={"executor-claude": "stubborn"})
    stack.wait_ready()
    family = stack.family()
    cursor = psutil.Process(stack.ready_events("executor-cursor")[0]["pid"])
    stack.process.send_signal(signal.SIGINT)
    until(lambda: gone(cursor))
    began = time.monotonic()
    code, _ = stack.finish(signal.SIGINT)
    assert code == 130
    assert time.monotonic() - began < 3
    assert all(gone(process) for process in family)


def test_kill_9_of_up_takes_the_children_along_and_the_next_one_goes_on(up, until, gone):
    stack = up(moods={"api": "parent"})
    stack.wait_ready()
    family, before = stack.family(), stack.connection()
    with _mongo(before) as client:
        client.shop.orders.insert_one({"_id": 1})
    stack.process.kill()
    until(lambda: all(gone(process) for process in family), 5)
    again = up()
    again.wait_ready()
    after = again.connection()
    assert after["api_key"] == before["api_key"]
    assert after["mongo_url"] == before["mongo_url"]
    with _mongo(after) as client:
        assert client.shop.orders.find_one() == {"_id": 1}


def test_two_stacks_run_side_by_side_and_one_directory_serves_one(up):
    one, two = up("one"), up("two")
    one.wait_ready()
    two.wait_ready()
    mine, yours = one.connection(), two.connection()
    assert all(mine[key] != yours[key] for key in mine)
    code, errors = up("one").finish()
    assert code == 1
    assert errors.count("\n") == 1
    assert f"held by pid {one.process.pid}" in errors
    assert one.process.poll() is None


def test_a_service_that_cannot_start_ends_the_stack_with_its_last_error(up, gone, until):
    stack = up(moods={"scheduler": "broken"})
    until(lambda: len(stack.family()) >= 5)
    family = stack.family()
    code, errors = stack.finish()
    assert code == 1
    assert errors == "codefleet up: scheduler cannot start: exit 3: cannot open the store: no such database\n"
    assert all(gone(process) for process in family)


def test_a_port_in_use_is_said_in_one_line(up):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, errors = up(port=port).finish()
    assert (code, errors.count("\n")) == (1, 1)
    assert f"port {port} is in use" in errors


def test_a_missing_binary_is_said_in_one_line(up, tmp_path):
    code, errors = up(environ={"CODEFLEET_MONGOD_BINARY": str(tmp_path / "none")}).finish()
    assert (code, errors.count("\n")) == (1, 1)
    assert errors.startswith("codefleet up: CODEFLEET_MONGOD_BINARY: expected the path of a program")


def test_command_line_refuses_a_wrong_scale_in_one_line(tmp_path, environ):
    result = subprocess.run(
        [sys.executable, "-m", "codefleet.embedded", "up", "--scale", "printer=2"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environ,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "codefleet up: --scale printer=2: expected one of api, scheduler, executor-claude, executor-cursor, monitor, "
        "got 'printer'\n"
    )
    assert not list(tmp_path.iterdir())


def _event(line):
    with contextlib.suppress(json.JSONDecodeError):
        return json.loads(line)
    return {}


def _mongo(connection):
    return MongoClient(connection["mongo_url"], w="majority", journal=True)
