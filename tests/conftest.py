"""What all tests share: real servers for the session, a database and a key prefix of its own for each test."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path
from uuid import uuid4

import pytest

from codefleet.embedded import EmbeddedServers
from codefleet.service import Stores, open_stores
from codefleet.settings import Settings

# A shell starts what it runs in the background with SIGINT ignored, and so would be all that the tests start: there
# Ctrl-C must do what it does for a person.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """The database and Redis, started once for this worker process of the test run."""
    started: Future[EmbeddedServers] = Future()
    stop = threading.Event()
    data_dir = tmp_path_factory.mktemp("servers")

    async def serve() -> None:
        async with EmbeddedServers(data_dir, environ={}) as running:
            started.set_result(running)
            await asyncio.to_thread(stop.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    # The servers die with the thread that started them, so it lives as long as the session.
    thread = threading.Thread(target=run)
    thread.start()
    yield started.result(timeout=30)
    stop.set()
    thread.join(timeout=30)


@pytest.fixture(scope="session")
def mongo_url(servers: EmbeddedServers) -> str:
    return servers.mongo_url


@pytest.fixture(scope="session")
def redis_url(servers: EmbeddedServers) -> str:
    return servers.redis_url


@pytest.fixture
def settings(mongo_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a deployment that no other test touches."""
    own = f"test-{uuid4().hex[:12]}"
    return Settings(
        mongo_url=mongo_url,
        redis_url=redis_url,
        mongo_database=own,
        redis_prefix=own,
        data_dir=tmp_path / "data",
        work_roots=(tmp_path,),
        hostname="testhost",
    )


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    async with open_stores(settings) as opened:
        yield opened
        await opened.mongo.drop()
