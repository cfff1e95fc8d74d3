"""The life of an API process: open, serve, stop in order."""

import asyncio
import contextlib
import gc
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from codefleet.domain.identity import Identity, Role
from codefleet.errors import ConfigurationError, UnavailableError
from codefleet.service import Stores, announce_ready, open_stores
from codefleet.settings import Settings
from services.api.app import create_app
from services.api.context import Api
from services.api.hub import Hub
from services.api.metrics import Metrics
from services.api.ready_feed import ReadyFeed
from services.api.security import Authenticator

BOOTSTRAP_VARIABLE = "CODEFLEET_BOOTSTRAP_API_KEY"
GRACE_SECONDS = 3.0
"""How long requests in flight have to end once the process is asked to stop."""
_PROBE_SECONDS = 0.5
_RETRY_SECONDS = 0.5
_CANCEL_AGAIN_SECONDS = 0.2
_FEED_SECONDS = 1.0
_COLLECT_AFTER_OBJECTS = 20_000

log = structlog.get_logger(__name__)


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set.

    Raises:
        SystemExit: with code 1, after a log line that says why, if it cannot serve at all.
    """
    try:
        await _serve_until(stop, settings, _free_address(settings.host, settings.port))
    except ConfigurationError as error:
        log.error("cannot serve", reason=error.message)  # noqa: TRY400 - the message says it all
        raise SystemExit(1) from None


async def _serve_until(stop: asyncio.Event, settings: Settings, address: str) -> None:
    opened = asyncio.Event()
    serving = asyncio.create_task(_serve(settings, address, stop, opened))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    # Opening waits as long as MongoDB is away; a process that is asked to stop meanwhile has nothing to finish.
    await asyncio.wait({serving}, timeout=2 * GRACE_SECONDS if opened.is_set() else 0)
    await _end(serving)
    if not serving.cancelled():
        serving.result()


async def _end(task: "asyncio.Task[None]") -> None:
    """Cancels a task until it has ended: redis-py can swallow a cancellation that meets a time-out of its own."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_SECONDS)


@asynccontextmanager
async def open_api(settings: Settings, stores: Stores) -> AsyncIterator[Api]:
    """Everything that requests work with; on the way out, lets go of who waits and finishes the ready feed."""
    metrics = Metrics()
    api = Api(
        settings=settings,
        stores=stores,
        authenticator=Authenticator(stores.api_keys),
        feed=ReadyFeed(stores.ready, stores.notices, settings.redis_prefix),
        hub=Hub(stores.redis, settings.redis_prefix, metrics),
        metrics=metrics,
        started_at=time.monotonic(),
        answered=asyncio.Event(),
        closing=asyncio.Event(),
    )
    reading = asyncio.create_task(api.hub.run())
    try:
        yield api
    finally:
        close_streams(api)
        await _end(reading)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FEED_SECONDS):
                await api.feed.close()


def close_streams(api: Api) -> None:
    """Ends streams and long polls at their next step; a client resumes them elsewhere."""
    api.closing.set()
    api.hub.wake_all()


async def store_bootstrap_key(stores: Stores) -> None:
    """Makes the admin key of the environment valid, if there is one.

    Raises:
        ConfigurationError: it does not have the form of a key.
    """
    key = os.environ.get(BOOTSTRAP_VARIABLE)
    while key:
        try:
            await stores.api_keys.store(key, Identity(user_id="admin", role=Role.ADMIN))
        except ValueError as error:
            raise ConfigurationError(f"{BOOTSTRAP_VARIABLE}: {error}") from None
        except UnavailableError:
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def _serve(settings: Settings, address: str, stop: asyncio.Event, opened: asyncio.Event) -> None:
    async with open_stores(settings) as stores, open_api(settings, stores) as api:
        opened.set()
        await store_bootstrap_key(stores)
        async with listening(api, address, settings.port) as server:
            _calm_garbage_collector()
            announce_ready(url=f"http://{settings.host}:{settings.port}")
            await asyncio.wait({server, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                server.result()
                raise RuntimeError("the HTTP server ended by itself")


@asynccontextmanager
async def listening(api: Api, address: str, port: int) -> AsyncIterator["asyncio.Task[None]"]:
    """Answers requests; the task that is given ends only if the server fails.

    On the way out it takes no new requests, ends streams, and gives requests in flight GRACE_SECONDS to end.
    """
    server = Server(
        create_app(api),
        address=address,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=1024,
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve())
    try:
        await _until_answering(api, address, port, serving)
        yield serving
    finally:
        close_streams(api)
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=GRACE_SECONDS)


def _calm_garbage_collector() -> None:
    """Keeps what lives as long as the process out of every collection, and collects less often.

    Measured with 100 connections: requests' p95 falls from 44 to 15 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)


async def _until_answering(api: Api, address: str, port: int, serving: "asyncio.Task[None]") -> None:
    """Returns when this very process has answered a request: others may share the port."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound
    while not api.answered.is_set():
        if serving.done():
            serving.result()
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await _probe(target, port)
        except (OSError, TimeoutError):
            await asyncio.sleep(0.01)


async def _probe(address: str, port: int) -> None:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await reader.read()
    finally:
        writer.close()


def _free_address(host: str, port: int) -> str:
    """The IP address of `host`, where the port is free or held by other processes of ours, which share it.

    Raises:
        ConfigurationError: there is no such address here, or somebody else has the port.
    """
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(target)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return str(target[0])
