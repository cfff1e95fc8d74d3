"""B3: from accepted to running at 100 submits a second with free slots. The peer is bare Dramatiq's idle pick-up."""

import asyncio
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.bench.report import Figure, percentile
from tests.support.stack import RunningStack, running_stack

_RATE = 100
_SECONDS = 20
_PEER_SAMPLES = 15


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {"CODEFLEET_SLOTS": "50"}
        async with running_stack(Path(folder) / "data", environment=environment) as stack:
            await _submit_evenly(stack, seconds=3)
            latencies = await _latencies(stack, await _submit_evenly(stack, seconds=_SECONDS))
            peer = await asyncio.to_thread(_dramatiq_pick_ups, stack.connection["redis_url"])
    p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
    peer_p50 = percentile(peer, 0.5)
    return [
        Figure(
            id="B3",
            what=f"accepted → running at {_RATE} submits/s with free slots",
            measured=f"p50 {p50:.0f} ms, p99 {p99:.0f} ms ({len(latencies):,} tasks)",
            target="p50 ≤ 10 ms, p99 ≤ 50 ms",
            met=p50 <= 10 and p99 <= 50,
            peer=f"bare Dramatiq, idle pick-up: p50 {peer_p50:.0f} ms",
            ratio=p50 / peer_p50,
        ),
    ]


async def _submit_evenly(stack: RunningStack, *, seconds: int) -> dict[str, float]:
    """Each task's id and the moment at which its submit was answered."""
    started = time.perf_counter()
    submits: list[asyncio.Task[tuple[str, float]]] = []
    for number in range(_RATE * seconds):
        await asyncio.sleep(max(0.0, started + number / _RATE - time.perf_counter()))
        submits.append(asyncio.create_task(_submit(stack)))
    return dict(await asyncio.gather(*submits))


async def _submit(stack: RunningStack) -> tuple[str, float]:
    task_id = await stack.submit(type="diagnostic", name="bench")
    return task_id, time.time()


async def _latencies(stack: RunningStack, accepted: dict[str, float]) -> list[float]:
    """Milliseconds from the answer to the submit to the stored move to `running`, on one machine's clock."""
    found = []
    for task_id, accepted_at in accepted.items():
        task = await stack.ended(task_id)
        running = next(move["at"] for move in task["history"] if move["to"] == "running")
        found.append((_time(running) - accepted_at) * 1000)
    return found


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _dramatiq_pick_ups(redis_url: str) -> list[float]:
    """Milliseconds until an idle worker of a bare Dramatiq has begun a message."""
    broker = RedisBroker(url=redis_url, namespace=f"bench-{uuid4().hex[:8]}", middleware=[])  # type: ignore[no-untyped-call]
    begun = threading.Event()

    def note() -> None:
        begun.set()

    actor: dramatiq.Actor[Any, Any] = dramatiq.actor(actor_name="note", queue_name="peer", broker=broker)(note)
    worker = dramatiq.Worker(broker, worker_threads=2)
    worker.start()
    samples = []
    for _ in range(_PEER_SAMPLES):
        time.sleep(1.0)  # long enough for the worker to be idle, which is what is measured
        begun.clear()
        sent = time.perf_counter()
        actor.send()
        begun.wait(10)
        samples.append((time.perf_counter() - sent) * 1000)
    worker.stop()
    broker.close()
    return samples
