"""One run of one task, from its claim to its settle."""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from codefleet.domain.outcomes import Cancelled, Failed, HandedBack, Outcome, Success, TimedOut, Usage
from codefleet.domain.retry import ErrorClass
from codefleet.domain.settlement import Settlement
from codefleet.domain.states import State
from codefleet.domain.tasks import Task, TaskProgress
from codefleet.domain.transitions import Transition
from codefleet.errors import UnavailableError
from codefleet.execution import supervisor
from codefleet.execution.drivers import (
    AgentDriver,
    AgentRun,
    DriverError,
    Log,
    Progress,
    Result,
    RunContext,
    Session,
    UsageReport,
)
from codefleet.execution.settle import RunFacts, settle
from codefleet.execution.task_log import TaskLog
from codefleet.execution.workspace import Workspace, prepare_workspace
from codefleet.messages import SlotFreed, TaskChanged, TasksReady
from codefleet.queueing.streams import StreamWriter, events_stream, wake_stream
from codefleet.storage.logs import LogRepository
from codefleet.storage.tasks import TaskRepository

_GRACE_SECONDS = 2.0
"""How long an agent may take to end by itself when it is asked to."""
_PROGRESS_SECONDS = 1.0
"""Progress is stored at most this often."""
_RETRY_SECONDS = 0.2

log = structlog.get_logger(__name__)


class RunEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What all runs of a worker share."""

    worker_id: str
    tasks: TaskRepository
    logs: LogRepository
    notices: StreamWriter
    redis_prefix: str
    data_dir: Path
    work_roots: Sequence[Path]
    max_log_bytes: int
    process_environment: Mapping[str, str]


class _Lost(msgspec.Struct, frozen=True):
    """The lease is over: the run writes nothing more."""


def _early(ending: Outcome | _Lost) -> Outcome:
    """The outcome of a run that had to end; of a lost one nothing will be written."""
    return HandedBack(reason="its lease is over") if isinstance(ending, _Lost) else ending


class Run:
    """Holds the lease of its task (`leases.Leaseholder`) until `execute` returns."""

    def __init__(self, task: Task, driver: AgentDriver, environment: RunEnvironment, *, lease_seconds: float) -> None:
        self.task = task
        self.epoch = task.epoch
        self._driver = driver
        self._environment = environment
        self._lease_until = time.monotonic() + lease_seconds
        self._agent: AgentRun | None = None
        self._ending: Outcome | _Lost | None = None
        self._must_end = asyncio.Event()
        self._usage = Usage()
        self._progress_stored_at = 0.0
        self._log = TaskLog(
            environment.logs,
            task_id=task.task_id,
            epoch=task.epoch,
            attempt=task.attempt,
            max_bytes=environment.max_log_bytes,
            flushed=self._notify,
        )

    # What others may ask of a run

    def renewed(self, seconds: float) -> None:
        self._lease_until = time.monotonic() + seconds
        if self._agent is not None:
            self._agent.renew(seconds)

    def cancel(self) -> None:
        self._end(Cancelled())

    def lose(self) -> None:
        self._end(_Lost())
        self._log.abandon()

    def hand_back(self, reason: str) -> None:
        self._end(HandedBack(reason=reason))

    # The run

    async def execute(self) -> None:
        """Runs the task and settles it; never raises."""
        structlog.contextvars.bind_contextvars(task_id=self.task.task_id, attempt=self.task.attempt)
        self._notify()
        outcome = await self._outcome()
        await self._log.close()
        facts = RunFacts(
            usage=self._usage,
            log_from=self._log.first_line if self._log.last_line is not None else None,
            log_to=self._log.last_line,
        )
        settlement = await self._settle(outcome, facts)
        if settlement is not None:
            log.info("task settled", state=settlement.state, cause=settlement.cause)
        self._notify(
            SlotFreed(worker_id=self._environment.worker_id, task_id=self.task.task_id, epoch=self.epoch), TasksReady()
        )

    async def _settle(self, outcome: Outcome, facts: RunFacts) -> Settlement | None:
        def settling(outcome: Outcome, facts: RunFacts) -> Awaitable[Settlement | None]:
            return settle(
                self.task,
                outcome,
                facts,
                worker_id=self._environment.worker_id,
                tasks=self._environment.tasks,
                is_lost=self._is_lost,
            )

        try:
            return await settling(outcome, facts)
        except Exception as error:
            # What a run leaves behind may be anything; a task whose result BSON cannot hold has ended all the same.
            log.exception("outcome cannot be stored")
            unstorable = Failed(
                error_class=outcome.error_class if isinstance(outcome, Failed) else ErrorClass.VALIDATION,
                code="OUTCOME_NOT_STORABLE",
                message=f"What the run left behind cannot be stored ({type(error).__name__})",
            )
        try:
            return await settling(unstorable, msgspec.structs.replace(facts, usage=Usage()))
        except Exception:
            # The lease ends, and with it the run.
            log.exception("run not settled")
            return None

    async def _outcome(self) -> Outcome:
        workspace: Workspace | None = None
        try:
            workspace = await self._prepare()
            if self._ending is not None:
                return _early(self._ending)
            self._agent = await self._driver.start(self._context(workspace))
            self._agent.renew(self._lease_until - time.monotonic())
            return await self._follow(self._agent)
        except DriverError as error:
            await self._log.write("system", error.outcome.message)
            return error.outcome
        except Exception as error:
            log.exception("run failed inside codefleet")
            message = f"{type(error).__name__}: {error}"
            return Failed(error_class=ErrorClass.SYSTEM_FAILURE, code="INTERNAL_ERROR", message=message)
        finally:
            if workspace is not None:
                workspace.remove_scratch()

    async def _prepare(self) -> Workspace:
        if self.task.attempt > 1:
            # An earlier run's processes must be gone before its directory is used again.
            await asyncio.to_thread(supervisor.sweep, self.task.task_id, below_epoch=self.epoch)
        return prepare_workspace(
            self.task,
            data_dir=self._environment.data_dir,
            work_roots=self._environment.work_roots,
        )

    def _context(self, workspace: Workspace) -> RunContext:
        task = self.task
        return RunContext(
            task_id=task.task_id,
            epoch=task.epoch,
            attempt=task.attempt,
            prompt=task.prompt or " ".join([task.command, *task.args]),
            parameters=task.parameters,
            work_directory=workspace.work_directory,
            scratch_directory=workspace.scratch_directory,
            session_id=task.session_id,
            lease_seconds=max(0.0, self._lease_until - time.monotonic()),
            environment=self._environment.process_environment,
        )

    async def _enter_running(self) -> None:
        if self.task.state is State.RUNNING:
            return
        transition = Transition(
            task_id=self.task.task_id,
            path=(State.STARTED, State.RUNNING),
            epoch=self.epoch,
            cause="the agent was started",
            actor=f"worker:{self._environment.worker_id}",
            attempt=self.task.attempt,
        )
        while not self._is_lost():
            try:
                if await self._environment.tasks.apply(transition):
                    self.task.state = State.RUNNING
                # Otherwise it is being cancelled or lost, and the next heartbeat says which.
                break
            except UnavailableError:
                await asyncio.sleep(_RETRY_SECONDS)
        self._notify()

    async def _follow(self, agent: AgentRun) -> Outcome:
        """Takes the agent's events until it has ended, by itself or because it had to."""
        stopping = asyncio.get_running_loop().create_task(self._stop_when_due(agent))
        result: Result | None = None
        try:
            await self._enter_running()
            async for event in agent.events():
                if isinstance(event, Result):
                    result = event
                else:
                    await self._take(event)
        finally:
            stopping.cancel()
            # Whatever happened, nothing of the run is alive when its directory and its task are given away.
            await agent.stop(grace_seconds=0.0)
        if result is None:
            raise RuntimeError("the driver ended without a result")
        # Work that was done when the end was asked for is not done again.
        if self._ending is None or isinstance(result.outcome, Success):
            return result.outcome
        return _early(self._ending)

    async def _stop_when_due(self, agent: AgentRun) -> None:
        timeout = self.task.timeout_seconds
        try:
            async with asyncio.timeout(timeout):
                await self._must_end.wait()
        except TimeoutError:
            self._end(TimedOut(timeout_seconds=timeout))
        await agent.stop(grace_seconds=0.0 if self._is_lost() else _GRACE_SECONDS)

    async def _take(self, event: Log | Progress | Session | UsageReport) -> None:
        match event:
            case Log(stream=stream, text=text):
                await self._log.write(stream, text)
            case Progress():
                await self._store_progress(event)
            case UsageReport(usage=usage):
                self._usage = usage
            case Session(session_id=session_id):
                await self._store_session(session_id)

    async def _store_progress(self, event: Progress) -> None:
        now = time.monotonic()
        if now - self._progress_stored_at < _PROGRESS_SECONDS:
            return
        self._progress_stored_at = now
        progress = TaskProgress(
            percentage=self.task.progress.percentage if event.percentage is None else event.percentage,
            current_step=event.current_step,
            total_steps=event.total_steps,
            details=dict(event.details),
        )
        try:
            await self._environment.tasks.set_progress(self.task.task_id, self.epoch, progress)
        except UnavailableError:
            log.warning("progress not stored")
        self._notify()

    async def _store_session(self, session_id: str) -> None:
        if session_id == self.task.session_id:
            return
        self.task.session_id = session_id
        try:
            await self._environment.tasks.set_session(self.task.task_id, self.epoch, session_id)
        except UnavailableError:
            log.warning("session not stored", session_id=session_id)

    def _end(self, ending: Outcome | _Lost) -> None:
        # The first reason stands, unless the lease is lost: then nothing may be written at all.
        if self._ending is None or isinstance(ending, _Lost):
            self._ending = ending
        self._must_end.set()

    def _is_lost(self) -> bool:
        return isinstance(self._ending, _Lost)

    def _notify(self, *hints: SlotFreed | TasksReady) -> None:
        notices, prefix = self._environment.notices, self._environment.redis_prefix
        notices.send(events_stream(prefix), TaskChanged(task_id=self.task.task_id))
        for hint in hints:
            notices.send(wake_stream(prefix), hint)
