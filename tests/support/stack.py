"""A whole stack as a newcomer starts it: `codefleet up` in a process of its own, used over HTTP, killed for real."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.waiting import eventually

START_SECONDS = 40.0
_STOP_SECONDS = 20


class RunningStack:
    """`codefleet up` and a client that is authenticated against it."""

    def __init__(self, process: asyncio.subprocess.Process, data_dir: Path, connection: Mapping[str, str]) -> None:
        self.process = process
        self.data_dir = data_dir
        self.connection = connection
        self.deaths: dict[int, float] = {}
        """When each process that `kill` killed was gone, in seconds since 1970."""
        self.client = httpx.AsyncClient(
            base_url=connection["url"] + "/api/v1",
            headers={"Authorization": f"Bearer {connection['api_key']}"},
            timeout=10.0,
        )

    def pids(self, name: str) -> list[int]:
        """The processes below `up` whose command line has `name`, such as `services.scheduler` or `mongod`."""
        return [pid for pid in _children(self.process.pid) if name in _command_line(pid)]

    async def kill(self, name: str) -> None:
        """Kills with -9 and returns when the processes are gone."""
        victims = self.pids(name)
        assert victims, f"no process has {name!r} on its command line"
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: _none_of(victims, self.pids(name)))
        self.deaths |= dict.fromkeys(victims, time.time())

    @contextlib.contextmanager
    def nothing_restarted(self) -> Iterator[None]:
        """Inside the block `up` is frozen: what was killed stays dead."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    async def submit(self, **body: Any) -> str:
        """Submits a task and returns its id."""
        answer = await self.client.post("/tasks", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["data"]["task_id"])

    async def task(self, task_id: str) -> dict[str, Any]:
        answer = await self.client.get(f"/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def ended(self, task_id: str, *, seconds: float = 40.0) -> dict[str, Any]:
        """The task once it is in a terminal state."""
        return await self.in_state(task_id, "success", "failure", "cancelled", "timeout", seconds=seconds)

    async def in_state(self, task_id: str, *states: str, seconds: float = 20.0) -> dict[str, Any]:
        async def read() -> dict[str, Any]:
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                return await self.task(task_id)
            return {}

        return await eventually(read, seconds=seconds, until=lambda task: task.get("status") in states)


async def _none_of(victims: Sequence[int], alive: Sequence[int]) -> bool:
    return not set(victims) & set(alive)


@asynccontextmanager
async def running_stack(
    data_dir: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[RunningStack]:
    """Starts a stack on free ports; on the way out stops it and checks that it ended in order and left no process."""
    output = (data_dir.parent / f"{data_dir.name}.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "codefleet.embedded", "up", "--data-dir", str(data_dir), "--port", "0", *arguments),
        env={**os.environ, "CODEFLEET_WORK_ROOTS": str(data_dir.parent), **(environment or {})},
        stdout=output,
        stderr=output,
    )
    try:
        connection = await _connection(process, data_dir)
        stack = RunningStack(process, data_dir, connection)
        async with stack.client:
            yield stack
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_SECONDS):
            assert await process.wait() == 0, _end_of(data_dir)
        assert _processes_in(data_dir) == []
    finally:
        output.close()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()


async def _connection(process: asyncio.subprocess.Process, data_dir: Path) -> dict[str, str]:
    path = data_dir / "connection.json"
    started = time.time()

    async def read() -> dict[str, str] | None:
        assert process.returncode is None, _end_of(data_dir)
        if path.exists() and path.stat().st_mtime >= started - 1:
            found: dict[str, str] = json.loads(path.read_text())
            return found
        return None

    connection = await eventually(read, seconds=START_SECONDS)
    assert connection is not None
    return connection


def _end_of(data_dir: Path) -> str:
    return (data_dir.parent / f"{data_dir.name}.log").read_text()[-2000:]


def _processes_in(data_dir: Path) -> list[str]:
    """The command lines of all processes that have this directory among their arguments or in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # A zombie has neither; it belongs to whoever should bury it.
        with contextlib.suppress(OSError):
            if any(os.fsencode(data_dir) in (process / name).read_bytes() for name in ("cmdline", "environ")):
                found.append(_command_line(int(process.name)))
    return found


def _children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                found += [int(child), *_children(int(child))]
    return found


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""
