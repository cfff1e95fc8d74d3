"""Runs an agent that is a command-line program: starts it, turns its lines into events, ends it.

A driver says what to start (`AgentCommand`) and how to understand it (`agent_output.AgentReader`); the rest is here.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from codefleet.domain.retry import ErrorClass
from codefleet.execution.agent_output import AgentEnd, AgentReader
from codefleet.execution.drivers import AgentEvent, DriverError, Log, Result, RunContext, UsageReport
from codefleet.execution.supervisor import LaunchError, OutputLine, ProcessSpec, SupervisedProcess, launch

_COMPLETED_GRACE_SECONDS = 2.0
"""How long an agent may live on after it has said its result; some never exit."""
_MAX_LINE_BYTES = 8 << 20
"""An event may carry an image that the agent has looked at."""
_LAST_WORDS = 5
_MASK = "***"
_SHORTEST_SECRET = 8
"""A shorter one would also be found where it is none."""
_UNUSABLE = frozenset({"ENOENT", "EACCES", "ENOEXEC", "ENOTDIR", "EISDIR"})


class AgentCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What to start.

    Args:
        program: its name for people.
        env: its complete environment.
        stdin: what it reads there; None is nothing at all.
        secrets: are masked in everything it prints, since an agent can be brought to print its environment.
    """

    program: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdin: bytes | None = None
    secrets: tuple[str, ...] = ()


class AgentProcess:
    """An agent under way, see `drivers.AgentRun`."""

    def __init__(self, process: SupervisedProcess, reader: AgentReader, secrets: Iterable[str]) -> None:
        self._process = process
        self._reader = reader
        self._secrets = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._stopped = False
        self._closing: asyncio.Task[None] | None = None

    async def events(self) -> AsyncIterator[AgentEvent]:
        try:
            async for line in self._process.lines():
                for event in self._understand(line):
                    yield event
                if self._reader.completed and self._closing is None:
                    self._closing = asyncio.create_task(self._close())
            ended = await self._process.wait()
        finally:
            if self._closing is not None:
                self._closing.cancel()
        usage = msgspec.structs.replace(
            self._reader.usage(), cpu_seconds=ended.cpu_seconds, max_memory_bytes=ended.max_memory_bytes
        )
        yield UsageReport(usage=usage)
        end = AgentEnd(exit=ended, stderr=tuple(self._last_words), stopped=self._stopped)
        yield Result(outcome=self._reader.outcome(end))

    async def stop(self, *, grace_seconds: float) -> None:
        self._stopped = True
        await self._process.stop(grace_seconds=grace_seconds)

    def renew(self, lease_seconds: float) -> None:
        self._process.renew(lease_seconds)

    def _understand(self, line: OutputLine) -> list[AgentEvent]:
        text = self._masked(line.text)
        if line.truncated:
            return [Log(stream="system", text=f"a line of more than {_MAX_LINE_BYTES >> 20} MiB was left out")]
        if line.stream == "stdout":
            return self._reader.read(text)
        if text.strip():
            self._last_words.append(text)
        return [Log(stream="stderr", text=text)]

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return text

    async def _close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_COMPLETED_GRACE_SECONDS):
                await self._process.wait()
        await self._process.kill()


async def start_agent(command: AgentCommand, reader: AgentReader, context: RunContext) -> AgentProcess:
    """Starts an agent in the run's work directory.

    Raises:
        DriverError: it could not be started, and nothing of it is left.
    """
    spec = ProcessSpec(
        argv=command.argv,
        cwd=context.work_directory,
        env=command.env,
        marker=context.marker,
        lease_seconds=context.lease_seconds,
        stdin=command.stdin,
        max_line_bytes=_MAX_LINE_BYTES,
        # The task's log has its own cap. A cap here would also hold back the result of an agent that never exits.
        max_output_bytes=sys.maxsize,
    )
    try:
        process = await launch(spec)
    except LaunchError as error:
        raise _not_started(command.program, error) from error
    return AgentProcess(process, reader, command.secrets)


def private_directories(context: RunContext) -> dict[str, str]:
    """Makes the agent's HOME and TMPDIR, which end with the run, and names them for its environment."""
    directories = {"HOME": context.scratch_directory / "home", "TMPDIR": context.scratch_directory / "tmp"}
    for directory in directories.values():
        directory.mkdir(mode=0o700, exist_ok=True)
    return {name: str(directory) for name, directory in directories.items()}


def kept_directory(data_dir: Path, name: str) -> Path:
    """Makes a directory that outlives runs, for what an agent needs to go on with a session."""
    directory = data_dir.resolve() / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _not_started(program: str, error: LaunchError) -> DriverError:
    message = f"{program} could not be started: {error.message}"
    if error.code == "E2BIG":
        return DriverError(
            ErrorClass.VALIDATION,
            "PROMPT_TOO_LONG",
            message,
            advice="Put the text into a file in the work directory and ask the agent to read it",
        )
    if error.code in _UNUSABLE:
        return DriverError(ErrorClass.CONFIGURATION, "AGENT_NOT_EXECUTABLE", message)
    return DriverError(
        ErrorClass.TEMPORARY,
        "AGENT_NOT_STARTED",
        message,
        advice=f"The executor's machine may be out of processes or memory ({os.strerror(error.errno)})",
    )
