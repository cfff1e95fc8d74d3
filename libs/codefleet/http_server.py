"""Serving an ASGI application inside a service's own event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from codefleet.errors import ConfigurationError

GRACE_SECONDS = 3.0
"""How long requests in flight have to end once the process is asked to stop."""
_PROBE_SECONDS = 0.5


@asynccontextmanager
async def listening(
    app: Any,
    *,
    host: str,
    port: int,
    closing: Callable[[], None] = lambda: None,
) -> AsyncIterator["asyncio.Task[None]"]:
    """Answers requests; the task that is given ends only if the server fails.

    On the way out it takes no new requests and gives those in flight GRACE_SECONDS to end. Processes of ours may share
    a port.

    Args:
        closing: called first on the way out; ends what would otherwise go on for ever, such as streams.

    Raises:
        ConfigurationError: the port cannot be had.
    """
    address = free_address(host, port)
    answered = asyncio.Event()
    server = Server(
        _noticing(app, answered),
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
        await _until_answering(answered, address, port, serving)
        yield serving
    finally:
        closing()
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=GRACE_SECONDS)


async def until_stopped(server: "asyncio.Task[None]", stop: asyncio.Event) -> None:
    """Returns when `stop` is set; raises RuntimeError if the server ended by itself."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({server, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not stop.is_set():
        server.result()
        raise RuntimeError("the HTTP server ended by itself")


def free_address(host: str, port: int) -> str:
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


def _noticing(app: Any, answered: asyncio.Event) -> Any:
    """`app`, which also tells that this very process was asked: others may share the port."""

    async def noticing(scope: Any, receive: Any, send: Any) -> None:
        answered.set()
        await app(scope, receive, send)

    return noticing


async def _until_answering(answered: asyncio.Event, address: str, port: int, serving: "asyncio.Task[None]") -> None:
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound
    while not answered.is_set():
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
