"""One operating-system process that does not outlive us and whose output arrives as lines."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_MAX_LINE_BYTES = 256 * 1024
_LAST_OUTPUT_SECONDS = 0.3
_GROUP_SECONDS = 0.3
_POLL_SECONDS = 0.005
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Process:
    """A started process, alone in its own session and group: a Ctrl-C in the terminal reaches only us.

    On Linux the kernel kills it when the thread that started it ends (PR_SET_PDEATHSIG), so start it from a thread
    that lives as long as it should: the main thread, usually.
    """

    def __init__(self, transport: asyncio.SubprocessTransport, lines: "_Lines") -> None:
        self._transport = transport
        self._lines = lines
        self.pid: int = transport.get_pid()

    async def wait(self) -> int:
        """The exit code (negative: the signal), once its last output has been delivered and its group is dead."""
        await asyncio.shield(self._lines.exited)
        # Nobody is left to stop what it may have started in its group, such as server workers that hold a port.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._until_group_gone(), _GROUP_SECONDS)
        # The exit may be known before the last output; a stray heir of the pipe must not keep us waiting for its end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._lines.ended), _LAST_OUTPUT_SECONDS)
        self._lines.flush()
        code = self._transport.get_returncode()
        self._transport.close()
        return -signal.SIGKILL if code is None else code

    def kill(self) -> None:
        """SIGKILL for the process and its group; harmless when they are gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _until_group_gone(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while True:
                os.killpg(self.pid, signal.SIGKILL)
                await asyncio.sleep(_POLL_SECONDS)

    def terminate(self) -> None:
        """Asks the process alone: it knows best in which order to end what it started."""
        if not self._lines.exited.done():
            with contextlib.suppress(ProcessLookupError):
                self._transport.send_signal(signal.SIGTERM)


async def start_process(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    on_line: Callable[[str], None],
    directory: Path | None = None,
) -> Process:
    """Starts `argv`; `on_line` gets each line of its output and errors, long ones in pieces.

    Raises:
        OSError: the program cannot be run.
    """
    loop = asyncio.get_running_loop()
    transport, lines = await loop.subprocess_exec(
        lambda: _Lines(on_line),
        *argv,
        env=dict(environ),
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent(os.getpid()),
    )
    return Process(transport, lines)


class Undertaker:
    """A helper that outlives us and then ends the watched process groups (see `undertaker.py`)."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [sys.executable, "-I", "-S", str(Path(__file__).with_name("undertaker.py"))]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)

    def watch(self, pid: int) -> None:
        self._tell(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """Ends the helper and what it still watches; may be called twice or without a start."""
        process, self._process = self._process, None
        if process and process.stdin:
            process.stdin.close()
            process.wait()

    def _tell(self, line: str) -> None:
        if self._process and self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line.encode())


class _Lines(asyncio.SubprocessProtocol):
    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, _: int, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._deliver(line)
        if len(self._rest) > _MAX_LINE_BYTES:
            self.flush()

    def pipe_connection_lost(self, _fd: int, _error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def flush(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self._deliver(rest)

    def _deliver(self, line: bytes) -> None:
        self._on_line(line.rstrip(b"\r").decode(errors="replace"))


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    libc = _LIBC
    if libc is None:
        return None

    def before_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the line above: then nobody would send the signal.
        if os.getppid() != parent:
            os._exit(1)

    return before_exec
