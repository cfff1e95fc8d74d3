"""One child: restarted, given up, stopped, and its output read whatever it is."""

import asyncio
import sys
import time

import psutil
import pytest

from codefleet.embedded import children
from codefleet.embedded.children import Child, ChildSpec, Failure, all_ready
from codefleet.embedded.logs import StackLog
from codefleet.errors import ConflictError, UnavailableError

READY = """print('{"event": "service ready"}', flush=True)\n"""


def make(code, *, log=None, probe=None):
    spec = ChildSpec(
        name="fake",
        argv=(sys.executable, "-c", code),
        environ={},
        explain=lambda code, lines: Failure(reason=f"exit {code}: {lines[-1] if lines else ''}"),
        probe=probe,
    )
    return Child(spec, log or StackLog(None))


async def test_five_failed_starts_are_the_end(monkeypatch):
    monkeypatch.setattr(children, "_FIRST_DELAY_SECONDS", 0.001)
    child = make("print('oh no'); raise SystemExit(7)")
    child.start()
    with pytest.raises(UnavailableError, match="fake cannot start: exit 7: oh no"):
        await child.wait_ready()
    assert child.restarts == children.START_ATTEMPTS - 1
    await child.stop(1)


async def test_after_it_was_ready_once_it_is_restarted_for_ever(monkeypatch, until_async):
    monkeypatch.setattr(children, "_FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(children, "_MAX_DELAY_SECONDS", 0.001)
    child = make(READY)
    child.start()
    await until_async(lambda: child.restarts > children.START_ATTEMPTS)
    await child.stop(1)
    assert child.pid is None


async def test_health_resets_the_delay(monkeypatch, until_async):
    monkeypatch.setattr(children, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(children, "_HEALTHY_SECONDS", 0.0)
    delays = []
    log = StackLog(None)
    monkeypatch.setattr(log, "event", lambda _level, _event, **fields: delays.append(fields["restart_seconds"]))
    child = make(READY, log=log)
    child.start()
    await until_async(lambda: len(delays) >= 3)
    await child.stop(1)
    assert set(delays) == {0.01}


async def test_a_refused_probe_kills_what_it_probed(monkeypatch):
    monkeypatch.setattr(children, "_FIRST_DELAY_SECONDS", 0.001)

    async def refuse(_pid):
        raise ConflictError("somebody else answers")

    child = make("import time; time.sleep(60)", probe=refuse)
    child.start()
    with pytest.raises(UnavailableError, match="somebody else answers"):
        await child.wait_ready()
    await child.stop(1)


async def test_stop_kills_what_ignores_sigterm_and_may_be_called_early_and_twice():
    child = make("import signal; signal.signal(15, signal.SIG_IGN)\n" + READY + "signal.pause()")
    await child.stop(1)
    child = make("import signal; signal.signal(15, signal.SIG_IGN)\n" + READY + "signal.pause()")
    child.start()
    await child.wait_ready()
    began = time.monotonic()
    await child.stop(0.1)
    await child.stop(0.1)
    assert time.monotonic() - began < 1
    assert child.pid is None


async def test_its_group_dies_with_it_even_when_it_holds_the_output_open(gone):
    lines = []
    log = StackLog(None)
    log.line = lambda _name, text: lines.append(text)
    started = "import subprocess, signal; print(subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
    child = make(started + READY + "signal.pause()", log=log)
    child.start()
    await child.wait_ready()
    worker = psutil.Process(int(lines[0]))
    await child.stop(2)
    assert gone(worker)


async def test_last_words_long_lines_and_broken_bytes_arrive():
    lines = []
    log = StackLog(None)
    log.line = lambda _name, text: lines.append(text)
    code = "import os; os.write(1, b'\\xff\\n' + b'x' * 600_000 + b'\\nlast words')"
    child = make(READY + code, log=log)
    child.start()
    await child.wait_ready()
    async with asyncio.timeout(5):
        while "last words" not in lines:
            await asyncio.sleep(0.01)
    await child.stop(1)
    assert "\ufffd" in lines
    assert sum(len(line) for line in lines if line.startswith("x")) >= 600_000


async def test_the_first_that_cannot_start_is_enough():
    well, broken = make("import time; time.sleep(60)"), make("")
    broken.spec.__dict__["argv"] = ("/nonexistent/program",)
    for child in (well, broken):
        child.start()
    with pytest.raises(UnavailableError, match="/nonexistent/program: No such file"):
        await all_ready([well, broken])
    await asyncio.gather(well.stop(1), broken.stop(1))
