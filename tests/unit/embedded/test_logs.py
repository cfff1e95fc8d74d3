"""The merged log: what people see, what programs get, and an output that stands still."""

import json
import threading
import time

from codefleet.embedded.logs import LogRenderer, StackLog


def render(text, *, colour=False):
    return LogRenderer(colour=colour).line("api", text)


def test_an_event_becomes_time_service_level_event_and_fields():
    line = render(json.dumps({"event": "task settled", "level": "info", "task": "t1", "note": "two words", "n": 3}))
    assert line[2] == line[5] == ":"
    assert line[8:] == ' api               info     task settled task=t1 note="two words" n=3'


def test_its_own_time_is_shown_in_local_time():
    moments = [render(json.dumps({"event": "e", "timestamp": f"2026-01-01T10:00:0{n}Z"}))[3:8] for n in (1, 2)]
    assert moments == ["00:01", "00:02"]


def test_other_lines_pass_and_cannot_steer_the_terminal():
    assert render("hello \x1b[2J there").endswith(" api               hello \\x1b[2J there")
    assert render('{"no": "event"}').endswith('{"no": "event"}')
    assert render("[1, 2]").endswith("[1, 2]")
    assert "\x1b" not in render(json.dumps({"event": "\x1b]0;x\x07", "k\x1b": "\x1b"}))


def test_an_exception_follows_on_lines_of_its_own():
    text = render(json.dumps({"event": "e", "level": "error", "exception": "Traceback\nValueError: no"}))
    assert text.splitlines()[1:] == ["    Traceback", "    ValueError: no"]


def test_colour_only_when_asked():
    text = json.dumps({"event": "e", "level": "error"})
    assert "\x1b[31merror" in render(text, colour=True)
    assert "\x1b" not in render(text)


def test_programs_get_the_lines_as_they_are():
    written = []
    log = StackLog(written.append, log_format="json")
    log.line("api", '{"event":"e"}')
    log.line("api", "")
    log.event("warning", "child ended", child="api")
    log.close()
    assert written[0] == b'{"event":"e"}\n'
    assert json.loads(written[1])["child"] == "api"
    assert len(written) == 2


def test_an_output_that_stands_still_holds_up_nobody_and_losses_are_said():
    go, written = threading.Event(), []

    def write(data):
        go.wait(10)
        written.append(data)

    log = StackLog(write)
    for number in range(10_100):
        log.plain(str(number))
    go.set()
    deadline = time.monotonic() + 10
    while len(written) < 10_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    log.plain("end")
    log.close()
    assert written[0] == b"0\n"
    assert b"log lines dropped" in written[-2]
    assert written[-1] == b"end\n"


def test_a_closed_output_ends_the_output_only():
    def write(_data):
        raise BrokenPipeError

    log = StackLog(write)
    log.plain("one")
    log._thread.join(5)
    log.plain("two")
    log.close()
