"""The demo shows both agents at work and leaves nothing behind, however it ends."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

DEADLINE_SECONDS = 60.0
SECRET_NAMES = ("ANTHROPIC_", "CLAUDE_", "CURSOR_", "CODEFLEET_")


def left_behind(directory: Path) -> list[str]:
    """Living processes that know the directory, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values(), process.cwd()]
            if process.pid != os.getpid() and any(str(directory) in word for word in words):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


async def start(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SECRET_NAMES)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "codefleet_testkit.demo", *arguments),
        env={**environment, "TMPDIR": str(directory)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )


async def test_both_agents_succeed_and_nothing_is_left(tmp_path):
    demo = await start(tmp_path)
    async with asyncio.timeout(DEADLINE_SECONDS):
        output = (await demo.communicate())[0].decode()

    assert demo.returncode == 0, output
    assert "+class TotalTest(unittest.TestCase):" in output
    assert "+## Usage" in output
    assert "Both tasks succeeded" in output
    assert list(tmp_path.iterdir()) == []
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, b"\xe2\x86\x92 Write test_prices.py"), (signal.SIGTERM, b"Starting MongoDB")],
)
async def test_an_interrupted_demo_leaves_nothing(tmp_path, number, moment):
    demo = await start(tmp_path)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while moment not in await demo.stdout.readline():
            assert demo.returncode is None
        demo.send_signal(number)
        output = (await demo.communicate())[0].decode()

    assert demo.returncode == 130
    assert "everything is stopped" in output
    assert list(tmp_path.iterdir()) == []
    assert left_behind(tmp_path) == []
