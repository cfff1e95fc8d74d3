"""Drives real agents the way a worker does, in directories of the test's own."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from codefleet.execution.drivers import AgentDriver, AgentEvent, AgentRun, Log, Progress, Result, RunContext
from codefleet.execution.supervisor import sweep
from codefleet_testkit.cursor_double import write_cursor_shim
from codefleet_testkit.model_server import ModelServer
from services.executor_claude.cli_driver import ClaudeCliDriver
from services.executor_cursor.driver import CursorDriver

DEADLINE_SECONDS = 30.0
CLAUDE_KEY = "sk-ant-made-up-claude-key-0001"
CURSOR_KEY = "key-made-up-cursor-0001"


class Performance:
    """A run under way, and every event of it so far."""

    def __init__(self, run: AgentRun, context: RunContext) -> None:
        self.run = run
        self.context = context
        self.events: list[AgentEvent] = []
        self._following = asyncio.create_task(self._follow())

    @property
    def outcome(self):
        assert isinstance(self.events[-1], Result)
        return self.events[-1].outcome

    @property
    def usage(self):
        """Of the report right before the result, which each run ends with."""
        return self.events[-2].usage

    @property
    def steps(self) -> list[str]:
        return [event.current_step for event in self.of(Progress)]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def log(self, *streams: str) -> str:
        return "\n".join(event.text for event in self.of(Log) if event.stream in streams or not streams)

    def processes(self) -> list[psutil.Process]:
        """The living processes of the run, by the marker in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("CODEFLEET_RUN") == self.context.marker:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    async def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.01)

    async def finish(self) -> "Performance":
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._following
        assert len(self.of(Result)) == 1
        assert self.processes() == []
        return self

    async def _follow(self) -> None:
        async for event in self.run.events():
            self.events.append(event)


class Stage:
    """Starts runs of one driver; nothing of them outlives the test."""

    def __init__(self, directory: Path, driver: AgentDriver, environment: dict[str, str]) -> None:
        self.directory = directory
        self.workspace = directory / "workspace"
        self.workspace.mkdir()
        self.driver = driver
        self.environment = {"PATH": os.environ["PATH"], **environment}
        self._performances: list[Performance] = []

    async def start(self, prompt: str, *, lease_seconds: float = 60.0, **parameters: Any) -> Performance:
        scratch = self.directory / f"scratch.{uuid.uuid4().hex[:8]}"
        scratch.mkdir()
        context = RunContext(
            task_id=str(uuid.uuid4()),
            epoch=1,
            attempt=1,
            prompt=prompt,
            parameters=parameters,
            work_directory=self.workspace,
            scratch_directory=scratch,
            session_id=str(uuid.uuid4()),
            lease_seconds=lease_seconds,
            environment=self.environment,
        )
        performance = Performance(await self.driver.start(context), context)
        self._performances.append(performance)
        return performance

    async def play(self, prompt: str, **options: Any) -> Performance:
        return await (await self.start(prompt, **options)).finish()

    async def close(self) -> None:
        for performance in self._performances:
            await performance.run.stop(grace_seconds=0.0)
            sweep(performance.context.task_id)


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture
async def claude(server: ModelServer, tmp_path: Path) -> AsyncIterator[Stage]:
    """The real Claude Code CLI in front of the stand-in."""
    environment = {
        "ANTHROPIC_API_KEY": CLAUDE_KEY,
        "ANTHROPIC_BASE_URL": server.url,
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "IS_SANDBOX": "1",
    }
    stage = Stage(tmp_path, ClaudeCliDriver(binary="", data_dir=tmp_path / "data"), environment)
    yield stage
    await stage.close()


@pytest.fixture
async def cursor(tmp_path: Path) -> AsyncIterator[Stage]:
    """The Cursor double."""
    driver = CursorDriver(binary=str(write_cursor_shim(tmp_path)), data_dir=tmp_path / "data")
    stage = Stage(tmp_path, driver, {"CURSOR_API_KEY": CURSOR_KEY})
    yield stage
    await stage.close()


@pytest.fixture
async def impostor(tmp_path: Path) -> AsyncIterator[Callable[[str], Stage]]:
    """A shell script in the place of the Claude Code CLI."""
    stages: list[Stage] = []

    def make(script: str) -> Stage:
        program = tmp_path / "impostor"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        driver = ClaudeCliDriver(binary=str(program), data_dir=tmp_path / "data")
        stages.append(Stage(tmp_path, driver, {"ANTHROPIC_API_KEY": CLAUDE_KEY}))
        return stages[-1]

    yield make
    for stage in stages:
        await stage.close()
