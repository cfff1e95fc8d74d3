"""Stacks of small stand-in services, run as `codefleet up` runs the real ones."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

DEADLINE_SECONDS = 20.0
NAMES = ("api", "scheduler", "executor-claude", "executor-cursor", "monitor")

SERVICE = """
import json, os, signal, socket, subprocess, sys
name, mood = sys.argv[1], sys.argv[2]
if mood == "broken":
    print(json.dumps({"event": "cannot open the store", "level": "error", "error": "no such database"}), flush=True)
    sys.exit(3)
if mood == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mood == "parent":
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
if name == "api":
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", int(os.environ["CODEFLEET_PORT"])))
    listener.listen()
own = {key: value for key, value in os.environ.items() if key.startswith("CODEFLEET_")}
print("plain words", flush=True)
ready = {"event": "service ready", "service": name, "level": "info", "pid": os.getpid(), "environ": own}
print(json.dumps(ready), flush=True)
signal.pause()
"""

RUNNER = """
import json, sys
from pathlib import Path
from codefleet.embedded.__main__ import run
from codefleet.embedded.stack import StackOptions
options = json.loads(sys.argv[1])
services = {name: tuple(argv) for name, argv in options["services"].items()}
sys.exit(run(StackOptions(data_dir=Path(options["data_dir"]), port=options["port"], services=services,
    scale=options["scale"]), "json"))
"""


class Up:
    """A running `up` and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], data_dir: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_ready(self):
        until(lambda: any(line.startswith("ready ") for line in self.lines) or self.process.poll() is not None)
        assert self.process.poll() is None, self.finish()
        return next(line for line in self.lines if line.startswith("ready "))

    def connection(self):
        return json.loads((self.data_dir / "connection.json").read_text())

    def ready_events(self, service: str):
        events = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [event for event in events if event["event"] == "service ready" and event["service"] == service]

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def finish(self, number: signal.Signals | None = None):
        """Its exit code and standard error, after a signal if one is given."""
        if number is not None and self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        assert self.process.stdout
        assert self.process.stderr
        errors = self.process.stderr.read() if not self.process.stderr.closed else ""
        self.process.stdout.close()
        self.process.stderr.close()
        return code, errors


def until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def gone(process: psutil.Process):
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until_async(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture(name="until")
def _until():
    return until


@pytest.fixture(name="until_async")
def _until_async():
    return until_async


@pytest.fixture(name="gone")
def _gone():
    return gone


@pytest.fixture
def up(tmp_path):
    """Starts an `up` on stand-in services; `moods` makes one of them `broken`, `stubborn` or a `parent`."""
    script, runner = tmp_path / "service.py", tmp_path / "runner.py"
    script.write_text(SERVICE)
    runner.write_text(RUNNER)
    started: list[Up] = []

    def start(data_dir="data", *, port=0, moods=None, scale=None, environ=None):
        services = {name: (sys.executable, str(script), name, (moods or {}).get(name, "well")) for name in NAMES}
        options = {"data_dir": str(tmp_path / data_dir), "port": port, "services": services, "scale": scale or {}}
        process = subprocess.Popen(
            [sys.executable, str(runner), json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=without_urls() | (environ or {}),
        )
        started.append(Up(process, tmp_path / data_dir))
        return started[-1]

    yield start
    for running in started:
        running.finish(signal.SIGKILL)


def without_urls():
    return {key: value for key, value in os.environ.items() if not key.startswith("CODEFLEET_")}


@pytest.fixture
def environ():
    """An environment without any codefleet setting."""
    return without_urls()
