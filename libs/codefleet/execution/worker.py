"""A worker: an executor process from its registration to its goodbye."""

import asyncio
import os
import time
from uuid import uuid4

import structlog

from codefleet.clock import utc_now
from codefleet.domain.queues import Executor, queues_served
from codefleet.domain.tasks import Task
from codefleet.domain.workers import Worker, WorkerState
from codefleet.errors import UnavailableError
from codefleet.execution.claim import claim
from codefleet.execution.drivers import AgentDriver
from codefleet.execution.function_driver import FunctionDriver, UnknownTypeDriver
from codefleet.execution.inbox import Inbox
from codefleet.execution.leases import Leases
from codefleet.execution.run import Run, RunEnvironment
from codefleet.messages import CancelRequested, Control, Grants, InboxFilled, WorkersChanged
from codefleet.queueing.broker import GrantBroker
from codefleet.queueing.streams import control_stream, read_stream, wake_stream
from codefleet.service import Stores, announce_ready, open_stores
from codefleet.settings import Settings
from codefleet.tasktypes.registry import TASK_TYPES

log = structlog.get_logger(__name__)


async def serve_executor(executor: Executor, agent: AgentDriver, settings: Settings, stop: asyncio.Event) -> None:
    """Runs granted tasks until `stop`, then hands back what is under way."""
    async with open_stores(settings) as stores:
        await ExecutorWorker(executor, agent, settings, stores).serve(stop)


class ExecutorWorker:
    """Takes grants, runs them in its slots, keeps their leases."""

    def __init__(self, executor: Executor, agent: AgentDriver, settings: Settings, stores: Stores) -> None:
        self._settings = settings
        self._stores = stores
        self._agent = agent
        self._worker = Worker(
            worker_id=f"executor-{executor}-{settings.hostname}-{uuid4().hex[:8]}",
            executor=executor,
            queues=list(queues_served(executor)),
            hostname=settings.hostname,
            pid=os.getpid(),
            slots=settings.slots,
            state=WorkerState.ONLINE,
            started_at=utc_now(),
        )
        self._broker = GrantBroker(settings.redis_url, settings.redis_prefix)
        self._runs: dict[asyncio.Task[None], Run] = {}
        self._slots = asyncio.Semaphore(settings.slots)
        self._leases = Leases(
            self._worker.worker_id,
            stores.tasks,
            stores.workers,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
        )
        self._environment = RunEnvironment(
            worker_id=self._worker.worker_id,
            tasks=stores.tasks,
            logs=stores.logs,
            notices=stores.notices,
            redis_prefix=settings.redis_prefix,
            data_dir=settings.data_dir,
            work_roots=settings.work_roots,
            max_log_bytes=settings.max_log_bytes,
            process_environment=os.environ,
        )

    async def serve(self, stop: asyncio.Event) -> None:
        inbox = Inbox(self._broker, self._worker.worker_id, self._accept)
        async with asyncio.TaskGroup() as duties:
            running = [duties.create_task(self._listen()), duties.create_task(self._leases.keep())]
            await self._stores.workers.register(self._worker)
            await asyncio.to_thread(inbox.open)
            self._hint_workers_changed()
            announce_ready(worker_id=self._worker.worker_id, slots=self._worker.slots)
            await stop.wait()
            await self._drain(inbox)
            for duty in running:
                duty.cancel()

    async def _accept(self, grants: Grants) -> None:
        asked_at = time.monotonic()
        try:
            until = asked_at + self._settings.claim_seconds
            claimed = await claim(grants.grants, self._worker.worker_id, self._stores.tasks, until=until)
        except UnavailableError:
            log.warning("grants not claimed: MongoDB is away", count=len(grants.grants))
            return
        for task in claimed:
            self._begin(task, asked_at)

    def _begin(self, task: Task, asked_at: float) -> None:
        lease_seconds = self._leases.usable_seconds - (time.monotonic() - asked_at)
        run = Run(task, self._driver_of(task), self._environment, lease_seconds=lease_seconds)
        self._leases.hold(task.task_id, run, asked_at=asked_at)
        executing = asyncio.get_running_loop().create_task(self._in_slot(run))
        self._runs[executing] = run
        executing.add_done_callback(self._ended)

    async def _in_slot(self, run: Run) -> None:
        # The scheduler grants to free slots only; a run that is still dying may hold one that it takes for free.
        async with self._slots:
            await run.execute()

    def _ended(self, executing: asyncio.Task[None]) -> None:
        run = self._runs.pop(executing)
        self._leases.drop(run.task.task_id, run)
        if not executing.cancelled() and (error := executing.exception()) is not None:
            log.error("run ended unsettled", task_id=run.task.task_id, error=repr(error))

    def _driver_of(self, task: Task) -> AgentDriver:
        type_ = TASK_TYPES.get(task.type)
        if type_ is None:
            return UnknownTypeDriver(task.type)
        if type_.function is None:
            return self._agent
        return FunctionDriver(type_.function, type_.parameters[task.executor], self._settings.work_roots)

    async def _listen(self) -> None:
        stream = control_stream(self._settings.redis_prefix, self._worker.worker_id)
        async for notice in read_stream(self._stores.redis, stream, Control):
            match notice:
                case InboxFilled():
                    self._broker.wake(self._worker.worker_id)
                case CancelRequested(task_id=task_id):
                    if (run := self._leases.holder(task_id)) is not None:
                        run.cancel()

    async def _drain(self, inbox: Inbox) -> None:
        log.info("draining", runs=len(self._runs))
        await self._set_state(WorkerState.DRAINING)
        await inbox.close()
        for run in self._runs.values():
            run.hand_back(f"worker {self._worker.worker_id} is shutting down")
        if self._runs:
            await asyncio.wait(set(self._runs), timeout=self._settings.drain_seconds)
        await self._set_state(WorkerState.GONE)

    async def _set_state(self, state: WorkerState) -> None:
        try:
            await self._stores.workers.set_state(self._worker.worker_id, state)
        except UnavailableError:
            log.warning("worker state not stored", state=state)
        self._hint_workers_changed()

    def _hint_workers_changed(self) -> None:
        self._stores.notices.send(wake_stream(self._settings.redis_prefix), WorkersChanged())
