"""Runs task functions inside the executor's process, behind the same protocol as agents."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from codefleet.domain.outcomes import Failed, Success
from codefleet.domain.retry import ErrorClass
from codefleet.execution.drivers import (
    AgentEvent,
    AgentRun,
    DriverError,
    Log,
    Progress,
    Result,
    RunContext,
    checked_parameters,
)
from codefleet.paths import PathNotAllowedError, check_really
from codefleet.tasktypes.context import RunStopped
from codefleet.tasktypes.registry import TaskFunction

_EVENTS_WAITING = 1000


class FunctionDriver:
    """Starts one task function; `parameters` is its schema."""

    def __init__(self, function: TaskFunction, parameters: type[msgspec.Struct], work_roots: Sequence[Path]) -> None:
        self._function = function
        self._parameters = parameters
        self._work_roots = work_roots

    async def start(self, context: RunContext) -> "FunctionRun":
        parameters = checked_parameters(context, self._parameters)
        return FunctionRun(self._function, parameters, context, self._work_roots)


class UnknownTypeDriver:
    """Refuses a task whose type this process does not have, such as one of a newer version."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def start(self, context: RunContext) -> AgentRun:  # noqa: ARG002 - the protocol has it
        raise DriverError(
            ErrorClass.CONFIGURATION,
            "UNKNOWN_TASK_TYPE",
            f"This executor does not know tasks of type {self._name!r}",
            advice="Bring api and executors to the same version, then submit it again",
        )


class FunctionRun:
    """A function under way; also the `TaskContext` that it sees."""

    def __init__(
        self,
        function: TaskFunction,
        parameters: msgspec.Struct,
        context: RunContext,
        work_roots: Sequence[Path],
    ) -> None:
        self.task_id = context.task_id
        self.epoch = context.epoch
        self.attempt = context.attempt
        self._work_roots = work_roots
        self._deadline = time.monotonic() + context.lease_seconds
        self._stopping = asyncio.Event()
        self._events: asyncio.Queue[AgentEvent] = asyncio.Queue()
        # What bounds the queue; the result needs no room, so that it can never be held up.
        self._room = asyncio.Semaphore(_EVENTS_WAITING)
        self._function = asyncio.get_running_loop().create_task(self._call(function, parameters))

    # As a run

    async def events(self) -> AsyncIterator[AgentEvent]:
        while True:
            event = await self._events.get()
            self._room.release()
            yield event
            if isinstance(event, Result):
                return

    async def stop(self, *, grace_seconds: float) -> None:
        self._stopping.set()
        await asyncio.wait({self._function}, timeout=grace_seconds)
        self._function.cancel()
        await asyncio.wait({self._function})

    def renew(self, lease_seconds: float) -> None:
        self._deadline = time.monotonic() + lease_seconds

    # As the context of its function

    async def log(self, text: str) -> None:
        await self._emit(Log(stream="agent", text=text))

    async def progress(self, percentage: float, *, step: str = "", details: dict[str, Any] | None = None) -> None:
        await self._emit(Progress(percentage=percentage, current_step=step, details=details or {}))

    async def sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
        self.check()

    def check(self) -> None:
        # The deadline holds also for a process that was frozen and has not heard yet that it lost its lease.
        if self._stopping.is_set() or time.monotonic() > self._deadline:
            raise RunStopped

    def allowed_path(self, path: str) -> Path:
        return check_really(path, self._work_roots, field="path")

    async def _emit(self, event: Log | Progress) -> None:
        self.check()
        await self._room.acquire()
        self._events.put_nowait(event)

    async def _call(self, function: TaskFunction, parameters: msgspec.Struct) -> None:
        outcome: Success | Failed = _STOPPED
        try:
            returned = await function(self, parameters)
            outcome = returned if isinstance(returned, Failed) else Success(result=returned)
        except (RunStopped, asyncio.CancelledError):
            pass
        except PathNotAllowedError as error:
            outcome = Failed(error_class=ErrorClass.PERMISSION, code="PATH_NOT_ALLOWED", message=error.message)
        except OSError as error:
            outcome = Failed(error_class=ErrorClass.TEMPORARY, code="OS_ERROR", message=str(error))
        except Exception as error:  # noqa: BLE001 - a third party's function may raise anything
            message = f"{type(error).__name__}: {error}"
            outcome = Failed(error_class=ErrorClass.SYSTEM_FAILURE, code="TASK_FUNCTION_FAILED", message=message)
        self._events.put_nowait(Result(outcome=outcome))


_STOPPED = Failed(error_class=ErrorClass.TEMPORARY, code="STOPPED", message="The run was stopped")
