"""The API while a store is away, and afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from codefleet.domain.api_key import new_api_key
from codefleet.domain.identity import Identity, Role
from codefleet.domain.queues import Queue
from codefleet.service import Stores, open_stores
from codefleet.settings import Settings
from codefleet.storage.tasks import TaskFilter
from tests.integration.api.conftest import client_of, served
from tests.integration.api.proxy import Proxy, proxied
from tests.integration.api.sse import events
from tests.support.waiting import eventually

DIAGNOSTIC = {"type": "diagnostic"}
SOON_SECONDS = 4.5
"""The API promises an answer within about 3 s; the rest is this machine's."""


def through(url: str, proxy: Proxy) -> str:
    host = urlsplit(url).netloc.rpartition("@")[2]
    return url.replace(host, f"127.0.0.1:{proxy.port}")


@contextmanager
def proxy_before(url: str) -> Iterator[Proxy]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    with proxied(parts.hostname, parts.port) as proxy:
        yield proxy


@pytest.fixture
def mongo(mongo_url: str) -> Iterator[Proxy]:
    with proxy_before(mongo_url) as proxy:
        yield proxy


@pytest.fixture
def redis(redis_url: str) -> Iterator[Proxy]:
    with proxy_before(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def client(settings: Settings, stores: Stores, mongo: Proxy, redis: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    """Alice's client of an API that reaches its stores through the proxies; `stores` reaches them directly."""
    key = new_api_key()
    await stores.api_keys.store(key, Identity(user_id="alice", role=Role.ADMIN))
    behind = msgspec.structs.replace(
        settings,
        mongo_url=through(settings.mongo_url, mongo),
        redis_url=through(settings.redis_url, redis),
    )
    async with open_stores(behind) as far, served(behind, far) as (_, url), client_of(url, key) as client:
        yield client
        mongo.mend()
        redis.mend()


async def timed(request: Awaitable[httpx.Response]) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    response = await request
    return response, time.monotonic() - started


@pytest.mark.parametrize("how", ["cut", "freeze"])
async def test_without_redis_a_submit_is_as_good_and_as_fast(client, redis, stores, how):
    assert (await client.post("/tasks", json=DIAGNOSTIC)).status_code == 202
    getattr(redis, how)()
    for _ in range(5):
        response, seconds = await timed(client.post("/tasks", json=DIAGNOSTIC))
        assert response.status_code == 202
        assert seconds < 1
    assert len(await stores.tasks.page(TaskFilter(), limit=10)) == 6


@pytest.mark.parametrize("how", ["cut", "freeze"])
async def test_without_redis_queues_are_shown_without_their_depths(client, redis, how):
    await client.post("/tasks", json=DIAGNOSTIC)
    getattr(redis, how)()
    response, seconds = await timed(client.get("/queues"))
    assert seconds < SOON_SECONDS
    data = response.json()["data"]
    assert data["degraded"] is True
    assert {queue["waiting"] for queue in data["items"]} == {None}
    [default] = [queue for queue in data["items"] if queue["name"] == Queue.DEFAULT]
    assert default["oldest_waiting_seconds"] >= 0


async def test_without_redis_tasks_can_be_cancelled_and_watched(client, redis):
    task_id = (await client.post("/tasks", json=DIAGNOSTIC)).json()["data"]["task_id"]
    redis.freeze()
    async with client.stream("GET", f"/tasks/{task_id}/events") as response:
        told = events(response)
        await anext(told)
        assert (await client.delete(f"/tasks/{task_id}")).json()["data"]["status"] == "cancelled"
        assert [event.name async for event in told] == ["state", "end"]


async def test_without_redis_health_is_degraded_and_the_api_is_ready(client, redis):
    redis.cut()
    data = (await client.get("/health")).json()["data"]
    assert data["status"] == "degraded"
    assert data["checks"]["redis"]["status"] == "down"
    assert data["checks"]["redis"]["advice"]
    assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("how", ["cut", "freeze"])
async def test_without_mongodb_every_request_is_told_soon_to_come_back(client, mongo, how):
    task_id = (await client.post("/tasks", json=DIAGNOSTIC)).json()["data"]["task_id"]
    getattr(mongo, how)()
    requests = [
        client.post("/tasks", json=DIAGNOSTIC),
        client.get("/tasks"),
        client.get(f"/tasks/{task_id}"),
        client.get(f"/tasks/{task_id}/logs"),
        client.get(f"/tasks/{task_id}/events"),
        client.delete(f"/tasks/{task_id}"),
        client.get("/queues"),
        client.get("/workers"),
    ]
    for response, seconds in await asyncio.gather(*(timed(request) for request in requests)):
        assert (response.status_code, response.json()["error"]["code"]) == (503, "UNAVAILABLE")
        assert int(response.headers["retry-after"]) >= 1
        assert seconds < SOON_SECONDS
    mongo.mend()

    async def submit() -> int:
        return (await client.post("/tasks", json=DIAGNOSTIC)).status_code

    await eventually(submit, seconds=15, until=lambda status: status == 202)


async def test_without_mongodb_the_process_lives_but_is_not_ready(client, mongo):
    await client.get("/health/ready")
    mongo.cut()
    assert (await client.get("/health/live")).json() == {"status": "alive"}

    async def ready() -> httpx.Response:
        return await client.get("/health/ready")

    refused = await eventually(ready, until=lambda response: response.status_code == 503)
    assert refused.json() == {"status": "unavailable"}
    mongo.mend()
    await eventually(ready, seconds=15, until=lambda response: response.status_code == 200)


async def test_a_stream_outlives_an_outage_of_mongodb(client, mongo):
    task_id = (await client.post("/tasks", json=DIAGNOSTIC)).json()["data"]["task_id"]
    async with client.stream("GET", f"/tasks/{task_id}/events") as response:
        told = events(response)
        await anext(told)
        mongo.cut()
        assert (await client.get(f"/tasks/{task_id}")).status_code == 503
        mongo.mend()

        async def cancelled() -> int:
            return (await client.delete(f"/tasks/{task_id}")).status_code

        await eventually(cancelled, seconds=15, until=lambda status: status == 202)
        assert [event.name async for event in told] == ["state", "end"]
