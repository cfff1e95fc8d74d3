"""submit → ready → grant → run → settle, in one process, on real stores."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from codefleet.domain.queues import Executor
from codefleet.domain.states import State
from codefleet.domain.tasks import Task
from codefleet.execution.drivers import AgentRun, RunContext
from codefleet.execution.worker import serve_executor
from codefleet.service import Stores
from codefleet.settings import Settings
from services.scheduler import __main__ as scheduler
from tests.support.tasks import put
from tests.support.waiting import eventually, finished


class NoAgent:
    async def start(self, context: RunContext) -> AgentRun:  # noqa: ARG002 - the protocol has it
        raise AssertionError("no agent is meant to run here")


@pytest.fixture
async def fleet(settings: Settings, stores: Stores) -> AsyncIterator[None]:
    stop = asyncio.Event()
    services = [
        asyncio.create_task(scheduler.main(settings, stop)),
        asyncio.create_task(serve_executor(Executor.CLAUDE, NoAgent(), settings, stop)),
    ]

    async def worker_is_registered() -> bool:
        assert not any(service.done() for service in services)
        return bool(await stores.workers.present())

    await eventually(worker_is_registered)
    yield
    stop.set()
    await finished(services)


async def ended(stores: Stores, task: Task) -> Task:
    async def read() -> Task:
        found = await stores.tasks.get(task.task_id)
        assert found is not None
        return found

    return await eventually(read, until=lambda found: found.is_terminal)


@pytest.mark.usefixtures("fleet")
async def test_a_submitted_task_runs_and_succeeds(stores: Stores):
    task = await put(stores, parameters={"output_lines": 3})
    settled = await ended(stores, task)
    assert settled.state is State.SUCCESS
    assert settled.result["output_lines"] == 3
    assert [move.to for move in settled.history] == ["received", "started", "running", "success"]
    assert [line.text for line in await stores.logs.read(task.task_id)] == [f"line {n} of 3" for n in (1, 2, 3)]
    assert settled.worker_id is None
    assert settled.lease_renewed_at is None
    assert settled.attempts[0].outcome == "success"


@pytest.mark.usefixtures("fleet")
async def test_a_retriable_failure_is_tried_again_and_every_attempt_is_kept(stores: Stores):
    task = await put(stores, parameters={"fail": "retriable", "fail_times": 2})
    settled = await ended(stores, task)
    assert settled.state is State.SUCCESS
    assert [attempt.outcome for attempt in settled.attempts] == ["retry", "retry", "success"]
    assert settled.retry_count == 2


@pytest.mark.usefixtures("fleet")
async def test_a_permanent_failure_is_not_tried_again(stores: Stores):
    settled = await ended(stores, await put(stores, parameters={"fail": "permanent"}))
    assert settled.state is State.FAILURE
    assert settled.error is not None
    assert settled.error.class_ == "validation"
    assert len(settled.attempts) == 1


@pytest.mark.usefixtures("fleet")
async def test_retries_end_at_the_limit(stores: Stores):
    settled = await ended(stores, await put(stores, parameters={"fail": "retriable"}, max_retries=1))
    assert settled.state is State.FAILURE
    assert len(settled.attempts) == 2


@pytest.mark.usefixtures("fleet")
async def test_a_task_that_takes_too_long_times_out(stores: Stores):
    settled = await ended(stores, await put(stores, parameters={"sleep_seconds": 60}, timeout_seconds=0.3))
    assert settled.state is State.TIMEOUT


@pytest.mark.usefixtures("fleet")
async def test_many_tasks_all_end_once(stores: Stores):
    tasks = await asyncio.gather(*(put(stores) for _ in range(200)))
    settled = [await ended(stores, task) for task in tasks]
    assert {task.state for task in settled} == {State.SUCCESS}
    assert {len(task.attempts) for task in settled} == {1}
