"""Runs the real Claude Code CLI and the Cursor double the way a driver would, in directories of the test's own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import claude_agent_sdk
import pytest

from codefleet_testkit.cursor_double import write_cursor_shim
from codefleet_testkit.model_server import ModelServer

CLAUDE = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
CLAUDE_FLAGS = ("--output-format", "stream-json", "--verbose", "--setting-sources", "")
CURSOR_FLAGS = ("--output-format", "stream-json", "--trust", "--force", "--model", "gpt-5")
DEADLINE_SECONDS = 30.0


class Agent:
    """A started agent: its process, and what it printed once `finish` has returned."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.stderr = ""

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def result(self) -> dict[str, Any]:
        return next(event for event in self.events if event["type"] == "result")

    def of_type(self, kind: str, subtype: str | None = None) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind and subtype in (None, event.get("subtype"))]

    async def read_until(self, text: str) -> None:
        """Reads lines up to the first that contains `text`."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"ended without {text!r}: {self.lines}"
                self.lines.append(line)
                if text in line:
                    return

    async def finish(self) -> "Agent":
        async with asyncio.timeout(DEADLINE_SECONDS):
            stdout, stderr = await self.process.communicate()
        self.lines += stdout.decode().splitlines()
        self.stderr = stderr.decode()
        return self


Start = Callable[..., Awaitable[Agent]]


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits until a condition holds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
async def spawn() -> AsyncIterator[Start]:
    """Starts a process that does not outlive the test."""
    agents: list[Agent] = []

    async def start(*command: str | Path, cwd: Path, environment: dict[str, str]) -> Agent:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env={"PATH": os.environ["PATH"], **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        agents.append(Agent(process))
        return agents[-1]

    yield start
    for agent in agents:
        if agent.process.returncode is None:
            agent.process.kill()
        await agent.process.communicate()


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    directory = tmp_path / "workspace"
    directory.mkdir()
    return directory


@pytest.fixture
def claude(spawn: Start, server: ModelServer, workspace: Path, tmp_path: Path) -> Start:
    """Starts the real Claude Code CLI against the stand-in."""

    async def start(prompt: str, *flags: str, key: str = "sk-ant-made-up-0001", retries: int = 0) -> Agent:
        environment = {
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": key,
            "HOME": str(tmp_path / "home"),
            "CLAUDE_CONFIG_DIR": str(tmp_path / "claude"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": str(retries),
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "IS_SANDBOX": "1",
        }
        flags = flags or ("--dangerously-skip-permissions",)
        return await spawn(CLAUDE, "-p", prompt, *CLAUDE_FLAGS, *flags, cwd=workspace, environment=environment)

    return start


@pytest.fixture
def cursor(spawn: Start, workspace: Path, tmp_path: Path) -> Start:
    """Starts the Cursor double by its shim."""

    async def start(prompt: str, *flags: str, key: str = "made-up") -> Agent:
        shim = write_cursor_shim(tmp_path)
        arguments = flags or (*CURSOR_FLAGS, "--workspace", str(workspace))
        return await spawn(shim, "-p", prompt, *arguments, cwd=tmp_path, environment={"CURSOR_API_KEY": key})

    return start
