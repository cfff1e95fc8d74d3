"""One child of a stack: started, watched, restarted with exponential back-off, stopped."""

import asyncio
import contextlib
import itertools
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codefleet.embedded.logs import StackLog, parse_line
from codefleet.embedded.processes import Process, Undertaker, start_process
from codefleet.errors import CodefleetError, UnavailableError

READY_EVENT = "service ready"
START_ATTEMPTS = 5
START_SECONDS = 60.0
_FIRST_DELAY_SECONDS = 0.2
_MAX_DELAY_SECONDS = 5.0
_HEALTHY_SECONDS = 10.0
_KEPT_LINES = 200
_OUTSIDE_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a child ended, in one line; `final` when another start cannot help."""

    reason: str
    final: bool = False


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """What to run and how to know that it runs.

    `probe` gets the pid and returns once the child answers; without it the child is ready when it prints an event
    `service ready`. `explain` gets the exit code and the last lines.
    """

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    explain: Callable[[int, Sequence[str]], Failure]
    directory: Path | None = None
    probe: Callable[[int], Awaitable[None]] | None = None
    show_output: bool = True


class Child:
    """Keeps one process running from `start` to `stop`."""

    def __init__(self, spec: ChildSpec, log: StackLog, undertaker: Undertaker | None = None) -> None:
        self.spec = spec
        self.restarts = 0
        self._log = log
        self._undertaker = undertaker or Undertaker()
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._settled = asyncio.Event()
        self._failure: str | None = None
        self._ready_since: float | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    @property
    def pid(self) -> int | None:
        """Of the running process; None between two starts."""
        return self._process.pid if self._process else None

    @property
    def ready(self) -> bool:
        return self._ready_since is not None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_running(), name=f"child {self.spec.name}")

    async def wait_ready(self) -> None:
        """Returns when the child has been ready once.

        Raises:
            UnavailableError: it ended five times before that, cannot run at all, or took longer than 60 s.
        """
        try:
            await asyncio.wait_for(self._settled.wait(), START_SECONDS)
        except TimeoutError as error:
            last = self._lines[-1] if self._lines else "it printed nothing"
            raise UnavailableError(f"{self.spec.name} was not ready after {START_SECONDS:g} s: {last}") from error
        if self._failure:
            raise UnavailableError(f"{self.spec.name} cannot start: {self._failure}")

    async def stop(self, deadline_seconds: float) -> None:
        """SIGTERM, and SIGKILL after the deadline; returns when the process is gone. May be called twice or early."""
        self._stop.set()
        if self._task is None:
            return
        if self._process:
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._task), deadline_seconds)
        self.kill()
        await self._task

    def kill(self) -> None:
        """Ends the process at once, and for good."""
        self._stop.set()
        if self._process:
            self._process.kill()

    async def _keep_running(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        for attempt in itertools.count(1):
            failure, healthy_seconds = await self._run_once()
            if self._stop.is_set():
                return
            if not self._settled.is_set() and (failure.final or attempt >= START_ATTEMPTS):
                self._failure = failure.reason
                self._settled.set()
                return
            if healthy_seconds >= _HEALTHY_SECONDS:
                delay = _FIRST_DELAY_SECONDS
            self._log.event(
                "warning", "child ended", child=self.spec.name, reason=failure.reason, restart_seconds=delay
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)
            if self._stop.is_set():
                return
            self.restarts += 1
            delay = min(2 * delay, _MAX_DELAY_SECONDS)

    async def _run_once(self) -> tuple[Failure, float]:
        self._lines.clear()
        try:
            process = await start_process(
                self.spec.argv,
                environ=self.spec.environ,
                on_line=self._on_line,
                directory=self.spec.directory,
            )
        except OSError as error:
            return Failure(reason=f"{self.spec.argv[0]}: {error.strerror}", final=True), 0.0
        self._process = process
        self._undertaker.watch(process.pid)
        if self._stop.is_set():
            process.terminate()
        failure = await self._attend(process)
        self._undertaker.forget(process.pid)
        self._process = None
        ready_since, self._ready_since = self._ready_since, None
        healthy_seconds = 0.0 if ready_since is None else asyncio.get_running_loop().time() - ready_since
        return failure, healthy_seconds

    async def _attend(self, process: Process) -> Failure:
        probe = asyncio.create_task(self._run_probe(process))
        code = await process.wait()
        probe.cancel()
        [refused] = await asyncio.gather(probe, return_exceptions=True)
        if isinstance(refused, Failure):
            return refused
        if -code in _OUTSIDE_SIGNALS:
            # What it printed last has nothing to do with its end.
            return Failure(reason=f"killed by {signal.Signals(-code).name}")
        return self.spec.explain(code, tuple(self._lines))

    async def _run_probe(self, process: Process) -> Failure | None:
        if self.spec.probe is None:
            return None
        try:
            await self.spec.probe(process.pid)
        except CodefleetError as error:
            process.kill()
            return Failure(reason=error.message)
        self._mark_ready()
        return None

    def _on_line(self, text: str) -> None:
        self._lines.append(text)
        if self.spec.show_output:
            self._log.line(self.spec.name, text)
        if self.spec.probe is None and not self.ready:
            fields = parse_line(text)
            if fields and fields["event"] == READY_EVENT:
                self._mark_ready()

    def _mark_ready(self) -> None:
        self._ready_since = asyncio.get_running_loop().time()
        self._settled.set()


async def all_ready(children: Iterable[Child]) -> None:
    """Returns when each has been ready once.

    Raises:
        UnavailableError: of the first that cannot start; the others are not waited for.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(child.wait_ready())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def stop_all(children: Iterable[Child], deadline_seconds: float) -> None:
    """Stops them side by side."""
    await asyncio.gather(*(child.stop(deadline_seconds) for child in children))
