"""Runs agents so that none of their processes outlives its right to run.

Each agent has a guardian process (`guardian.py`), which kills the agent's whole tree when the lease ends or when this
process dies, whatever state this one is in. This module starts guardians, talks to them, and reads the agents' output.
"""

import asyncio
import errno
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from codefleet.execution.process_environment import (
    LAUNCH_VARIABLE,
    MARKER_VARIABLE,
    child_environment,
    kill_marked,
    sweep,
    without_reserved,
)
from codefleet.execution.process_output import Output, OutputLine

__all__ = [
    "Exit",
    "LaunchError",
    "OutputLine",
    "ProcessSpec",
    "SupervisedProcess",
    "child_environment",
    "launch",
    "sweep",
]

Reason = Literal["exit", "lease", "orphaned", "killed", "lost"]
"""Why the tree was ended: the main process ended by itself, its lease ran out, its executor died, it was told to, or
its guardian was killed (then the marked processes were killed from here)."""

_GUARDIAN = str(Path(__file__).with_name("guardian.py"))
_REAP_SECONDS = 0.001


class LaunchError(Exception):
    """The agent could not be started, and nothing of it is left. `code` is the errno's name, such as ENOENT."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number
        self.code = errno.errorcode.get(number, "EIO")
        self.message = message


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An agent to start.

    Args:
        argv: the program, looked up on the PATH of `env`, and its arguments; no shell is involved.
        cwd: exists.
        env: the agent's complete environment, see `child_environment`; CODEFLEET_* in it is left out.
        marker: "<task_id>:<epoch>", by which `sweep` finds the agent's processes; a run may launch several.
        lease_seconds: how long the agent may run from now on unless renewed.
        stdin: what the agent reads there before the end; None is nothing at all.
        max_line_bytes: what a line has beyond is dropped and counted.
        max_output_bytes: lines beyond, over both pipes, are dropped and counted, but for the last of each pipe.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    marker: str
    lease_seconds: float
    stdin: bytes | None = None
    max_line_bytes: int = 1 << 20
    max_output_bytes: int = 1 << 26


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent ended; all its processes are dead.

    Args:
        exit_code: the main process's, None if a signal ended it.
        cpu_seconds: user and system time of the whole tree.
        max_memory_bytes: the largest resident size of any one of its processes.
        survivors_killed: processes that had to be killed beside the main one, less those which a parent that was about
            to die buried itself.
    """

    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    max_memory_bytes: int = 0
    survivors_killed: int = 0
    reason: Reason = "lost"
    dropped_bytes: int = 0


class SupervisedProcess:
    """An agent under way. As a context manager it kills the agent when the block is left.

    A cancelled `wait()` or `lines()` leaves the agent running, until its lease ends at the latest; a cancelled
    `stop()` or `kill()` still kills it.
    """

    def __init__(
        self, guardian: "subprocess.Popen[bytes]", control: int, report: int, output: Output, launch_id: str
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._guardian = guardian
        self._control = os.fdopen(control, "wb", buffering=0)
        self._report = report
        self._unread = b""
        self._reports: dict[str, dict[str, Any]] = {}
        self._output = output
        self._launch_id = launch_id
        self._answered = self._loop.create_future()
        self._gone: asyncio.Future[Exit] = self._loop.create_future()
        os.set_blocking(control, False)
        os.set_blocking(report, False)
        self._loop.add_reader(report, self._on_report)

    @property
    def pid(self) -> int:
        """The main process; also the id of its session and process group."""
        return int(self._reports["started"]["pid"])

    def lines(self) -> AsyncIterator[OutputLine]:
        """Both pipes merged, in the order of arrival; ends when both have ended or the tree is dead.

        For one reader. The agent has to wait while its reader is far behind; once the reader has left, the rest is
        read and dropped.
        """
        return self._output.lines()

    async def wait(self) -> Exit:
        """Returns when nothing of the agent is alive. Somebody should be reading `lines()` meanwhile."""
        return await asyncio.shield(self._gone)

    def renew(self, lease_seconds: float) -> None:
        """The agent may run for `lease_seconds` from now, instead of what was said before."""
        self._send(f"renew {lease_seconds:.3f}")

    async def stop(self, *, grace_seconds: float) -> Exit:
        """Asks the main process by SIGINT, after half the grace all of the tree by SIGTERM, and kills it at the end.

        Returns when nothing of the agent is alive. Harmless when repeated.
        """
        try:
            for command in ("signal INT", "signal-tree TERM"):
                self._send(command)
                with suppress(TimeoutError):
                    async with asyncio.timeout(grace_seconds / 2):
                        return await self.wait()
        finally:
            self._request_kill()
        return await self.wait()

    async def kill(self) -> Exit:
        """Kills the whole tree at once; returns when nothing of it is alive. Harmless when repeated."""
        self._request_kill()
        return await self.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.kill()

    async def started(self) -> None:
        """Returns once the agent runs.

        Raises:
            LaunchError: it does not; nothing of it is left.
        """
        await asyncio.shield(self._answered)
        if "started" in self._reports:
            return
        await self.wait()
        failure = self._reports.get("failed", {"errno": errno.EIO, "message": "the agent's guardian died"})
        raise LaunchError(failure["errno"], failure["message"])

    def _send(self, command: str) -> None:
        if self._control.closed:
            return
        try:
            taken = self._control.write(command.encode() + b"\n")
        except BrokenPipeError:
            return
        if taken is None:
            # It has not read its pipe for thousands of commands. The end of the pipe means `kill` to it.
            self._control.close()

    def _request_kill(self) -> None:
        self._send("kill")
        # An agent may have stopped its own guardian.
        self._guardian.send_signal(signal.SIGCONT)

    def _on_report(self) -> None:
        chunk = os.read(self._report, 1 << 16)
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            report = json.loads(line)
            self._reports[report["event"]] = report
        if not self._answered.done() and (self._reports or not chunk):
            self._answered.set_result(None)
        if not chunk:
            self._loop.remove_reader(self._report)
            os.close(self._report)
            self._bury_guardian()

    def _bury_guardian(self) -> None:
        # Callbacks rather than a task: the end of the event loop cancels tasks, and this has to be done even then.
        if self._guardian.poll() is None:
            self._loop.call_later(_REAP_SECONDS, self._bury_guardian)
            return
        if not self._reports.keys() & {"exited", "failed"}:
            kill_marked(LAUNCH_VARIABLE, lambda launch_id: launch_id == self._launch_id)
        self._control.close()
        self._output.finish()
        exited = {key: value for key, value in self._reports.get("exited", {}).items() if key != "event"}
        self._gone.set_result(Exit(**exited, dropped_bytes=self._output.dropped_bytes))


async def launch(spec: ProcessSpec) -> SupervisedProcess:
    """Starts an agent; returns when its program runs. Takes some 20 ms.

    Raises:
        LaunchError: the program or the directory is missing or not to be used, or this process is out of resources.
    """
    try:
        process = _start_guardian(spec)
    except OSError as error:
        raise LaunchError(error.errno or errno.EIO, f"{error.strerror}: cannot start a guardian") from error
    try:
        await process.started()
    except asyncio.CancelledError:
        await process.kill()
        raise
    return process


def _start_guardian(spec: ProcessSpec) -> SupervisedProcess:
    launch_id = f"{spec.marker}:{secrets.token_hex(8)}"
    with ExitStack() as ours, ExitStack() as guardians:

        def pipe(*, reader: ExitStack) -> tuple[int, int]:
            reading, writing = os.pipe()
            reader.callback(os.close, reading)
            (guardians if reader is ours else ours).callback(os.close, writing)
            return reading, writing

        def readable(content: bytes) -> int:
            descriptor = _memory_file(content)
            guardians.callback(os.close, descriptor)
            return descriptor

        control_read, control = pipe(reader=guardians)
        report, report_write = pipe(reader=ours)
        stdout, stdout_write = pipe(reader=ours)
        stderr, stderr_write = pipe(reader=ours)
        specification = readable(_specification(spec, launch_id))
        passed = (control_read, report_write, specification)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _GUARDIAN, launch_id, *map(str, passed)],
            # A stdin that stays open would be one more pipe here.
            stdin=subprocess.DEVNULL if spec.stdin is None else readable(spec.stdin),
            stdout=stdout_write,
            stderr=stderr_write,
            env={},
            pass_fds=passed,
            start_new_session=True,
        )
        ours.pop_all()
    output = Output(
        {"stdout": stdout, "stderr": stderr},
        max_line_bytes=spec.max_line_bytes,
        max_output_bytes=spec.max_output_bytes,
    )
    return SupervisedProcess(process, control, report, output, launch_id)


def _specification(spec: ProcessSpec, launch_id: str) -> bytes:
    environment = without_reserved(spec.env) | {MARKER_VARIABLE: spec.marker, LAUNCH_VARIABLE: launch_id}
    wanted = {
        "argv": spec.argv,
        "cwd": str(spec.cwd),
        "environment": environment,
        "lease_seconds": spec.lease_seconds,
    }
    return json.dumps(wanted).encode()


def _memory_file(content: bytes) -> int:
    """A descriptor from which `content` can be read; it holds any size without anybody having to write on, and
    unlike a command line or an environment nobody else gets to see it.
    """
    writing = os.memfd_create("codefleet")
    with os.fdopen(writing, "wb") as file:
        file.write(content)
        file.flush()
        return os.open(f"/proc/self/fd/{writing}", os.O_RDONLY)
