"""Agents are small Python programs whose command line carries the test's token, so that every living one is found."""

import asyncio
import os
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from codefleet.execution.supervisor import ProcessSpec, SupervisedProcess

PRELUDE = """\
import os, signal, sys, time

def become_a_daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, "daemon"], {})
        os._exit(0)
    os.wait()
    while not os.path.exists(__file__ + ".ready"):
        time.sleep(0.001)

if sys.argv[1:] == ["daemon"]:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    open(__file__ + ".ready", "w").close()
    time.sleep(60)
    sys.exit()
"""
"""A daemon leaves by double fork, new session and exec, with an empty environment, deaf to signals, holding stdout."""


class Workshop:
    """Makes agents, and knows which of their processes are alive."""

    def __init__(self, directory: Path) -> None:
        self.token = uuid.uuid4().hex
        self.directory = directory / self.token
        self.directory.mkdir()

    def agent(self, source: str, *, name: str = "agent") -> tuple[str, ...]:
        path = self.directory / f"{name}.py"
        path.write_text(PRELUDE + textwrap.dedent(source))
        return (sys.executable, "-I", "-S", str(path))

    def spec(self, source: str | tuple[str, ...], **fields: Any) -> ProcessSpec:
        return ProcessSpec(
            **{
                "argv": self.agent(source) if isinstance(source, str) else source,
                "cwd": self.directory,
                "env": {"PATH": os.environ["PATH"]},
                "marker": f"{self.token}:1",
                "lease_seconds": 60.0,
                **fields,
            }
        )

    def living(self) -> list[int]:
        """Agents, their offspring, and guardians."""
        found = []
        for process in psutil.process_iter():
            try:
                if self.token in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def is_dead(self) -> bool:
        return not self.living()

    async def until(self, condition: Callable[[], Any], *, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not so after {seconds} s; alive: {self.living()}"
            await asyncio.sleep(0.005)

    async def ready(self, name: str = "agent.py.ready") -> None:
        await self.until((self.directory / name).exists)


@pytest.fixture
def workshop(tmp_path):
    workshop = Workshop(tmp_path)
    yield workshop
    left = workshop.living()
    for pid in left:
        os.kill(pid, 9)
    assert left == []


@pytest.fixture
def output_of():
    async def texts(process: SupervisedProcess) -> list[str]:
        return [line.text async for line in process.lines()]

    return texts
