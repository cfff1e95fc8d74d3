"""A worker on real stores with an agent that does what the test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from codefleet.domain.outcomes import Failed, Success
from codefleet.domain.queues import Executor
from codefleet.domain.retry import ErrorClass
from codefleet.domain.states import State
from codefleet.domain.tasks import Task
from codefleet.domain.transitions import Transition
from codefleet.errors import UnavailableError
from codefleet.execution.drivers import AgentEvent, DriverError, Log, Result, RunContext
from codefleet.execution.worker import ExecutorWorker
from codefleet.messages import Grant, Grants
from codefleet.service import Stores
from codefleet.settings import Settings
from tests.support.tasks import make_task
from tests.support.waiting import eventually, finished

STOPPED = Failed(error_class=ErrorClass.TEMPORARY, code="STOPPED", message="stopped")


class ScriptedRun:
    """A run whose events the test emits. It ends when the test or `stop` says so."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.stops: list[float] = []
        self.leases: list[float] = []
        self._events: asyncio.Queue[AgentEvent] = asyncio.Queue()

    def emit(self, *events: AgentEvent) -> None:
        for event in events:
            self._events.put_nowait(event)

    def say(self, text: str) -> None:
        self.emit(Log(stream="agent", text=text))

    def end(self, outcome: Success | Failed | None = None) -> None:
        self.emit(Result(outcome=outcome or Success(result="done", exit_code=0)))

    @property
    def stopped(self) -> bool:
        return bool(self.stops)

    async def events(self) -> AsyncIterator[AgentEvent]:
        while True:
            event = await self._events.get()
            yield event
            if isinstance(event, Result):
                return

    async def stop(self, *, grace_seconds: float) -> None:
        self.stops.append(grace_seconds)
        self.end(STOPPED)

    def renew(self, lease_seconds: float) -> None:
        self.leases.append(lease_seconds)


class ScriptedAgent:
    """Starts scripted runs, or fails to with `error`."""

    def __init__(self) -> None:
        self.runs: list[ScriptedRun] = []
        self.error: Exception | None = None

    async def start(self, context: RunContext) -> ScriptedRun:
        if self.error is not None:
            raise self.error
        self.runs.append(ScriptedRun(context))
        return self.runs[-1]

    def refuse(self, code: str) -> None:
        self.error = DriverError(ErrorClass.CONFIGURATION, code, "no binary")


class Flaky:
    """A repository that is away when the test says so, before or after it did what it was asked."""

    def __init__(self, repository: Any) -> None:
        self._repository = repository
        self.away = False
        self.refused = 0
        self.lose_replies = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._repository, name)
        if not asyncio.iscoroutinefunction(value):
            return value

        async def called(*args: Any, **kwargs: Any) -> Any:
            if self.away:
                self.refused += 1
                raise UnavailableError("MongoDB is away")
            answer = await value(*args, **kwargs)
            if name == "apply" and self.lose_replies:
                self.lose_replies -= 1
                raise UnavailableError("the reply was lost")
            return answer

        return called


class Workshop:
    """One worker and what a test does to it."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self.truth = stores
        self.tasks, self.logs = Flaky(stores.tasks), Flaky(stores.logs)
        self.workers = Flaky(stores.workers)
        flaky = msgspec.structs.replace(stores, tasks=self.tasks, logs=self.logs, workers=self.workers)
        self.settings = settings
        self.agent = ScriptedAgent()
        self.worker = ExecutorWorker(Executor.CLAUDE, self.agent, settings, flaky)
        self.worker_id = self.worker._worker.worker_id
        self.stop = asyncio.Event()

    def go_away(self, *, away: bool = True) -> None:
        for repository in (self.tasks, self.logs, self.workers):
            repository.away = away

    async def granted(self, worker_id: str | None = None, **fields: Any) -> tuple[Task, Grant]:
        """A task that the scheduler has granted, and the message that says so."""
        values: dict[str, Any] = {"type": "agent", "executor": Executor.CLAUDE, "prompt": "do it"}
        task = make_task(**(values | fields))
        await self.truth.tasks.insert(task)
        return task, await self.grant(task, worker_id)

    async def grant(self, task: Task, worker_id: str | None = None) -> Grant:
        now = await self.task(task)
        transition = Transition(
            task_id=task.task_id,
            path=(now.state, State.RECEIVED),
            epoch=now.epoch,
            cause="granted",
            actor="scheduler",
            attempt=now.attempt,
            fields={"epoch": now.epoch + 1, "worker_id": worker_id or self.worker_id, "due_at": None},
            renews_lease=True,
        )
        assert await self.truth.tasks.apply(transition)
        return Grant(task_id=task.task_id, epoch=now.epoch + 1, attempt=now.attempt, type=now.type)

    async def accept(self, *grants: Grant) -> None:
        await self.worker._accept(Grants(grants=list(grants)))

    async def running(self, **fields: Any) -> tuple[Task, ScriptedRun]:
        """A task whose agent is at work."""
        task, grant = await self.granted(**fields)
        await self.accept(grant)
        await self.reaches(task, State.RUNNING)
        run = next(run for run in self.agent.runs if run.context.task_id == task.task_id)
        return task, run

    async def move(self, task: Task, *path: State, **fields: Any) -> None:
        """What somebody else does to a task."""
        now = await self.task(task)
        transition = Transition(
            task_id=task.task_id,
            path=path,
            epoch=now.epoch,
            cause="asked for",
            actor="user:tester",
            attempt=now.attempt,
            fields=fields,
        )
        assert await self.truth.tasks.apply(transition)

    async def task(self, task: Task) -> Task:
        found = await self.truth.tasks.get(task.task_id)
        assert found is not None
        return found

    async def reaches(self, task: Task, state: State, *, seconds: float = 10.0) -> Task:
        async def read() -> Task:
            return await self.task(task)

        return await eventually(read, until=lambda found: found.state is state, seconds=seconds)

    async def until(self, condition: Callable[[], Any], *, seconds: float = 10.0) -> None:
        async def probe() -> bool:
            return bool(condition())

        await eventually(probe, seconds=seconds)

    async def idle(self) -> None:
        await self.until(lambda: not self.worker._runs)

    async def lines(self, task: Task) -> list[str]:
        return [entry.text for entry in await self.truth.logs.read(task.task_id)]


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Leases short enough to be lost within a test."""
    return msgspec.structs.replace(settings, heartbeat_seconds=0.3, lease_seconds=3.0, drain_seconds=3.0)


class NoInbox:
    """Most tests hand grants to the worker themselves; Dramatiq's threads take a second to stop."""

    def __init__(self, *_: object) -> None:
        pass

    def open(self) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture
async def workshop(quick: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workshop]:
    monkeypatch.setattr("codefleet.execution.worker.Inbox", NoInbox)
    async for made in _open_workshop(quick, stores):
        yield made


@pytest.fixture
async def workshop_with_inbox(quick: Settings, stores: Stores) -> AsyncIterator[Workshop]:
    async for made in _open_workshop(quick, stores):
        yield made


async def _open_workshop(quick: Settings, stores: Stores) -> AsyncIterator[Workshop]:
    made = Workshop(quick, stores)
    serving = asyncio.create_task(made.worker.serve(made.stop))

    async def registered() -> bool:
        return bool(await stores.workers.present())

    await eventually(registered)
    yield made
    made.go_away(away=False)
    made.stop.set()
    await finished([serving])
