"""Serving an ASGI application inside a service's own event loop."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

_PROBE_SECONDS = 0.5

log = structlog.get_logger(__name__)


async def serve_http(
    app: Any,
    *,
    host: str,
    port: int,
    stop: asyncio.Event,
    ready: Callable[[], None],
    closing: Callable[[], None] = lambda: None,
    grace_seconds: float = 3.0,
) -> None:
    """Serves `app` until `stop` is set; then lets requests in flight end.

    Processes of ours may share a port.

    Args:
        ready: called once, when this very process has answered a request.
        closing: called when the end begins; ends what would otherwise go on for ever, such as streams.
        grace_seconds: how long requests in flight have to end.

    Raises:
        SystemExit: with code 1, after a log line, if the port is taken.
    """
    address = _free_address(host, port)
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
    stopping = asyncio.create_task(stop.wait())
    try:
        await _until_answering(answered, address, port, serving)
        ready()
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        closing()
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=grace_seconds)


def _noticing(app: Any, answered: asyncio.Event) -> Any:
    async def noticing(scope: Any, receive: Any, send: Any) -> None:
        answered.set()
        await app(scope, receive, send)

    return noticing


def _free_address(host: str, port: int) -> str:
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(target)
    except OSError as error:
        log.error("cannot listen", host=host, port=port, reason=error.strerror)  # noqa: TRY400
        raise SystemExit(1) from None
    return str(target[0])


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
