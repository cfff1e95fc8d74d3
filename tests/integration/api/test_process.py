"""The API as a process: start, readiness, shared port, stop."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import pytest

from codefleet.domain.api_key import new_api_key
from codefleet.settings import Settings
from tests.integration.api.conftest import client_of, free_port
from tests.integration.api.sse import events
from tests.support.waiting import eventually

START_SECONDS = 30.0


class Process:
    """`python -m services.api`, and what it has logged."""

    def __init__(self, settings: Settings, port: int, **environ: str) -> None:
        self.key = new_api_key()
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        variables = {
            "MONGO_URL": settings.mongo_url,
            "REDIS_URL": settings.redis_url,
            "MONGO_DATABASE": settings.mongo_database,
            "REDIS_PREFIX": settings.redis_prefix,
            "PORT": str(port),
            "BOOTSTRAP_API_KEY": self.key,
            **environ,
        }
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "services.api"],
            env=os.environ | {f"CODEFLEET_{name}": value for name, value in variables.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until_ready(self) -> dict[str, object]:
        """The readiness line."""
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            event: dict[str, object] = json.loads(line)
            if event["event"] == "service ready":
                return event
        raise AssertionError(f"it ended with {self.popen.wait()} before it was ready")

    def end(self) -> None:
        self.popen.kill()
        self.popen.communicate()


@contextmanager
def process(settings: Settings, port: int, **environ: str) -> Iterator[Process]:
    started = Process(settings, port, **environ)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture
async def ready(settings: Settings) -> AsyncIterator[Process]:
    with process(settings, free_port()) as started:
        await asyncio.wait_for(asyncio.to_thread(started.until_ready), START_SECONDS)
        yield started


async def test_it_announces_its_url_when_it_answers_and_knows_the_bootstrap_key(settings):
    with process(settings, free_port()) as started:
        line = await asyncio.wait_for(asyncio.to_thread(started.until_ready), START_SECONDS)
        assert line["url"] == started.url
        async with client_of(started.url, started.key) as client:
            made = await client.post("/tasks", json={"type": "diagnostic"})
        assert (made.status_code, made.json()["data"]["user_id"]) == (202, "admin")


async def test_several_processes_share_a_port(settings, ready):
    with process(settings, ready.port) as second:
        await asyncio.wait_for(asyncio.to_thread(second.until_ready), START_SECONDS)
        ready.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(ready.popen.wait, 10) == 0
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{second.url}/health/live")).status_code == 200


async def test_a_taken_port_is_one_clear_line_and_exit_code_1(settings):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with process(settings, other.getsockname()[1]) as started:
            output, _ = await asyncio.to_thread(started.popen.communicate, None, START_SECONDS)
    [line] = output.splitlines()
    assert started.popen.returncode == 1
    event = json.loads(line)
    assert (event["level"], event["event"]) == ("error", "cannot serve")
    assert "Address already in use" in event["reason"]


async def test_a_bootstrap_key_of_the_wrong_form_is_one_clear_line_and_never_shown(settings):
    with process(settings, free_port(), BOOTSTRAP_API_KEY="not-a-key") as started:
        output, _ = await asyncio.to_thread(started.popen.communicate, None, START_SECONDS)
    assert started.popen.returncode == 1
    assert "CODEFLEET_BOOTSTRAP_API_KEY" in output
    assert "not-a-key" not in output
    assert "Traceback" not in output


async def test_asked_to_stop_it_finishes_requests_ends_streams_and_exits_0(ready):
    async with client_of(ready.url, ready.key) as client, client_of(ready.url, ready.key) as other:
        task_id = (await client.post("/tasks", json={"type": "diagnostic"})).json()["data"]["task_id"]
        waiting = asyncio.create_task(other.get(f"/tasks/{task_id}?wait=60"))
        async with client.stream("GET", f"/tasks/{task_id}/events") as response:
            told = events(response)
            await anext(told)

            async def subscribers() -> str:
                return (await client.get("/metrics")).text

            await eventually(subscribers, until=lambda text: "codefleet_stream_subscribers 2.0" in text)
            started = time.monotonic()
            ready.popen.send_signal(signal.SIGTERM)
            assert [event async for event in told] == []
        assert (await waiting).json()["data"]["status"] == "pending"
    assert await asyncio.to_thread(ready.popen.wait, 10) == 0
    assert time.monotonic() - started < 6


async def test_a_client_that_never_reads_does_not_hold_up_the_stop(ready):
    _, writer = await asyncio.open_connection("127.0.0.1", ready.port)
    writer.write(b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    ready.popen.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(ready.popen.wait, 15) == 0
    writer.close()


async def test_it_can_be_stopped_while_it_waits_for_mongodb(settings):
    port = str(free_port())
    with process(settings, free_port(), MONGO_URL=f"mongodb://127.0.0.1:{port}/?directConnection=true") as started:
        assert started.popen.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(started.popen.stdout.readline), START_SECONDS)
        assert "waiting for MongoDB" in line
        started.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(started.popen.wait, 12) == 0
