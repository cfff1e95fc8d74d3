"""Following across broken connections and a restart of the server: nothing twice, nothing lost."""

import json
import threading
import time

import pytest

from codefleet_cli import stream
from codefleet_cli.connection import Server
from codefleet_cli.errors import UnexpectedAnswerError, UnreachableError
from codefleet_cli.follow import follow
from tests.integration.cli.fleet_double import API_KEY, DEADLINE_SECONDS, Plan, error_body

LINES = [f"line {n}" for n in range(20)]


class Recorder:
    def __init__(self):
        self.lines, self.states, self.notices = [], [], []

    def log(self, entries):
        self.lines += [entry["text"] for entry in entries]

    def state(self, move):
        self.states.append(move["to"])

    def progress(self, progress):
        pass

    def notice(self, text):
        self.notices.append(text)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(stream, "_FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def server(fleet):
    fleet.plan = Plan(lines=LINES)
    fleet.add(task_id="11111111-1111-7111-8111-111111111111")
    return Server(url=fleet.url, api_key=API_KEY, origin="test")


def follow_task(server, fleet, recorder, **options):
    [task_id] = fleet.tasks
    return follow(server, task_id, recorder, **options)


def test_streams_that_break_again_and_again_are_resumed_where_they_were(server, fleet, recorder):
    fleet.cuts["logs"] += [0, 3, 1, 0, 7]
    fleet.cuts["events"] += [2, 0, 1]
    task = follow_task(server, fleet, recorder)
    assert task["status"] == "success"
    assert recorder.lines == LINES
    assert recorder.states == ["pending", "received", "started", "running", "success"]
    resumed = [request for request in fleet.sent("GET", "/logs") if "Last-Event-ID" in request["headers"]]
    assert [request["query"]["after"] for request in resumed] == [
        request["headers"]["Last-Event-ID"] for request in resumed
    ]


def test_a_restart_of_the_server_is_said_once(server, fleet, recorder):
    fleet.cuts["logs"].append(5)
    fleet.cuts["events"].append(2)
    fleet.hold = True

    def restart():
        # Both streams are under way when the server goes: otherwise they would lose it one after the other.
        deadline = time.monotonic() + DEADLINE_SECONDS
        while set(fleet.held) != {"logs", "events"} and time.monotonic() < deadline:
            fleet.reached.wait(0.01)
            fleet.reached.clear()
        fleet.hold = False
        fleet.stop()
        fleet.start()

    operator = threading.Thread(target=restart)
    operator.start()
    task = follow_task(server, fleet, recorder)
    operator.join(DEADLINE_SECONDS)
    assert task["status"] == "success"
    assert recorder.lines == LINES
    assert len(recorder.states) == 5
    assert recorder.notices[0].startswith("connection lost")
    assert recorder.notices[-1] == "connected again"
    assert len(recorder.notices) == 2


def test_a_busy_server_and_a_gateway_without_one_are_tried_again(server, fleet, recorder):
    fleet.answers += [(503, error_body("UNAVAILABLE", "busy")), (502, b"bad gateway"), (504, b"")]
    follow_task(server, fleet, recorder)
    assert recorder.lines == LINES


def test_a_log_can_be_followed_from_a_line_on(server, fleet, recorder):
    follow_task(server, fleet, recorder, after=1_000_000_017)
    assert recorder.lines == ["line 18", "line 19"]


def test_a_server_that_stays_away_is_given_up(server, fleet, recorder, monkeypatch):
    monkeypatch.setattr(stream, "GIVE_UP_SECONDS", 0.0)
    fleet.stop()
    with pytest.raises(UnreachableError, match="cannot reach"):
        follow_task(server, fleet, recorder)
    fleet.start()


def test_what_is_no_event_stream_is_not_tried_again(server, fleet, recorder):
    fleet.answers += [(200, {"success": True, "data": {}})] * 2
    with pytest.raises(UnexpectedAnswerError, match="not an event stream"):
        follow_task(server, fleet, recorder)


def test_a_broken_run_with_json_has_every_event_once(codefleet, fleet):
    fleet.plan = Plan(lines=LINES)
    fleet.cuts["logs"] += [4, 4]
    result = codefleet("run", "x", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["log"]["text"] for event in events if event["event"] == "log"] == LINES
    assert events[-1]["event"] == "end"
    assert "connection lost" in result.stderr
