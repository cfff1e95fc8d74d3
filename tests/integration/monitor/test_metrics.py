"""The monitor's metrics, of a real fleet's stores."""

import re

import httpx
import pytest

from codefleet.clock import in_seconds, utc_now
from codefleet.domain.queues import Executor, Queue
from codefleet.domain.states import State
from codefleet.domain.transitions import Transition
from codefleet.domain.workers import Worker, WorkerState
from codefleet.service import Stores
from services.monitor.app import create_app
from services.monitor.collector import Collector
from tests.support.tasks import make_task, put


async def scrape(stores: Stores) -> dict[str, float]:
    transport = httpx.ASGITransport(create_app(Collector(stores)))
    async with httpx.AsyncClient(transport=transport, base_url="http://monitor") as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    samples = re.findall(r"^(codefleet_\S+) (\S+)$", answer.text, re.MULTILINE)
    return {name: float(value) for name, value in samples}


@pytest.fixture
async def worker(stores: Stores) -> Worker:
    worker = Worker(
        worker_id="w1",
        executor="claude",
        queues=["claude_execution", "default"],
        hostname="host",
        pid=1,
        slots=4,
        state=WorkerState.ONLINE,
        started_at=utc_now(),
    )
    await stores.workers.register(worker)
    return worker


async def test_queue_depth_and_states_count_what_is_stored(stores: Stores):
    await put(stores, executor=Executor.CLAUDE)
    await put(stores, executor=Executor.CLAUDE)
    await put(stores)
    metrics = await scrape(stores)
    assert metrics['codefleet_queue_ready_tasks{queue="claude_execution"}'] == 2
    assert metrics['codefleet_queue_ready_tasks{queue="default"}'] == 1
    assert metrics['codefleet_tasks{state="pending"}'] == 3
    assert metrics['codefleet_tasks{state="success"}'] == 0


async def test_the_oldest_waiting_age_is_that_of_the_oldest_task_that_could_start(stores: Stores):
    task = make_task(created_at=in_seconds(-120))
    await stores.tasks.insert(task)
    await stores.tasks.insert(make_task(created_at=in_seconds(-900), due_at=in_seconds(900)))
    await stores.tasks.insert(make_task(created_at=in_seconds(-900), scheduled_at=in_seconds(-20)))
    metrics = await scrape(stores)
    assert 119 < metrics['codefleet_queue_oldest_waiting_seconds{queue="default"}'] < 180


async def test_busy_slots_are_the_leases_of_a_worker(stores: Stores, worker: Worker):
    task = await put(stores)
    granted = await stores.tasks.apply(
        Transition(
            task_id=task.task_id,
            path=(State.PENDING, State.RECEIVED),
            cause="test",
            actor="scheduler",
            attempt=0,
            fields={"worker_id": worker.worker_id, "epoch": 1},
            renews_lease=True,
        ),
    )
    assert granted
    metrics = await scrape(stores)
    assert metrics['codefleet_worker_slots{executor="claude",worker="w1"}'] == 4
    assert metrics['codefleet_worker_busy_slots{executor="claude",worker="w1"}'] == 1
    assert metrics['codefleet_workers{executor="claude",state="online"}'] == 1
    assert metrics['codefleet_queue_running_tasks{queue="default"}'] == 1


async def test_tasks_are_counted_less_often_than_the_rest(stores: Stores, monkeypatch: pytest.MonkeyPatch):
    collector = Collector(stores)

    async def seen() -> tuple[int | None, int]:
        await put(stores)
        reading = await collector.read()
        return reading.queues[Queue.DEFAULT].ready, reading.states[State.PENDING]

    assert await seen() == (1, 1)
    assert await seen() == (1, 1)
    monkeypatch.setattr("services.monitor.collector._FRESH_SECONDS", -1.0)
    assert await seen() == (3, 1)
    monkeypatch.setattr("services.monitor.collector._COUNTS_FRESH_SECONDS", -1.0)
    assert await seen() == (4, 4)
