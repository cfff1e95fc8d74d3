"""B1: durable submits over HTTP. The peer is bare Dramatiq's enqueue, in-process and not durable."""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import dramatiq

from codefleet.queueing.broker import GrantBroker
from tests.bench.report import Figure, percentile
from tests.support.stack import RunningStack, running_stack

_COUNT = 40_000
_WARM_UP = 4_000
_CONNECTIONS = 100
_PEER_COUNT = 5_000


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        # The executors stay out: what is measured is the submit, not the run.
        arguments = ("--scale", "executor-claude=0", "--scale", "executor-cursor=0")
        async with running_stack(Path(folder) / "data", *arguments) as stack:
            await _load(stack, _WARM_UP)
            outcome = await _load(stack, _COUNT)
            stored = (await stack.client.get("/tasks?limit=1")).json()["data"]["total"]
            peer = await asyncio.to_thread(_dramatiq_enqueues, stack.connection["redis_url"])
    assert not outcome["refused"], outcome["refused"]
    assert stored == _COUNT + _WARM_UP, stored
    rate = _COUNT / outcome["seconds"]
    p50, p95 = (percentile(outcome["latencies"], share) * 1000 for share in (0.5, 0.95))
    return [
        Figure(
            id="B1",
            what=f"durable submits over HTTP, {_CONNECTIONS} connections, authenticated",
            measured=f"{rate:,.0f}/s, p50 {p50:.0f} ms, p95 {p95:.0f} ms ({_COUNT:,} accepted = stored)",
            target="≥ 4,000/s, p95 ≤ 50 ms",
            met=rate >= 4000 and p95 <= 50,
            peer=f"bare Dramatiq enqueue, in-process, not durable: {peer:,.0f}/s",
            ratio=rate / peer,
        ),
    ]


async def _load(stack: RunningStack, count: int) -> dict[str, Any]:
    body = json.dumps({"type": "diagnostic", "name": "bench", "project_id": "bench", "tags": ["b1"]}).encode()
    url = urlsplit(stack.connection["url"])
    request = (
        f"POST /api/v1/tasks HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {stack.connection['api_key']}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    generator = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load", str(url.hostname), str(url.port), str(_CONNECTIONS), str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await generator.communicate(request)
    assert generator.returncode == 0
    outcome: dict[str, Any] = json.loads(output)
    return outcome


def _dramatiq_enqueues(redis_url: str) -> float:
    broker = GrantBroker(redis_url, f"bench-{uuid4().hex[:8]}")
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name="peer", actor_name="noop", args=(), kwargs={}, options={}
    )
    started = time.perf_counter()
    for _ in range(_PEER_COUNT):
        broker.enqueue(message)
    return _PEER_COUNT / (time.perf_counter() - started)
