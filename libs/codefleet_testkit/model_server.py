"""A stand-in for the Anthropic Messages API, for tests and for the demo: no model, no network, no cost.

    python -m codefleet_testkit.model_server --port 0        # prints {"event":"ready","port":N}

What it answers is told by directives in the prompt, see `codefleet_testkit.directives`. Any key is accepted but a
missing one and the word `invalid`. GET /_requests lists what was asked so far.
"""

import argparse
import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self

import msgspec
import uvicorn
from litestar import Litestar, Request, Response, get, head, post, route
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.params import JSONBody
from litestar.response import Stream

from codefleet_testkit.directives import Cut, DirectiveError, Error, Fault, Silence, Slow
from codefleet_testkit.ledger import Ledger, RecordedRequest
from codefleet_testkit.messages_api import (
    CountTokensRequest,
    MessagesRequest,
    error_body,
    events,
    message,
    server_sent,
)
from codefleet_testkit.scenarios import locate, reply_to

_REFUSED_KEY = "invalid"
_ANY_PATH = ["/", "/{path:path}"]

HttpRequest = Request[Any, Any, State]


class ModelServer:
    """The stand-in on a loopback port of its own, inside the caller's event loop.

    >>> async with ModelServer() as server:
    ...     server.url, server.requests

    Args:
        port: 0 takes a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._wanted_port = port
        self._ledger = Ledger()
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """For ANTHROPIC_BASE_URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request so far, in order of arrival."""
        return self._ledger.requests

    async def __aenter__(self) -> Self:
        # uvicorn writes a traceback for each stream that is cut on purpose: hence no logging at all.
        config = uvicorn.Config(
            _application(self._ledger), log_config=None, log_level=60, lifespan="off", timeout_graceful_shutdown=0
        )
        self._server = _Server(config)
        listener = socket.create_server(("127.0.0.1", self._wanted_port))
        self.port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.listening.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server and self._serving:
            self._server.should_exit = True
            await self._serving


class _Server(uvicorn.Server):
    """uvicorn, without its signal handlers: the process belongs to the caller."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class _CutError(Exception):
    """Makes the server close the connection in the middle of a response."""


def _application(ledger: Ledger) -> Litestar:
    return Litestar(
        route_handlers=[_messages, _count_tokens, _models, _requests, _anything_else, _head],
        before_request=_admit,
        exception_handlers={HTTPException: _refused, DirectiveError: _misunderstood},
        state=State({"ledger": ledger}),
        openapi_config=None,
        logging_config=None,
    )


async def _admit(request: HttpRequest) -> Response[Any] | None:
    """Records the request and refuses it for want of a key."""
    if request.url.path == "/_requests":
        return None
    ledger: Ledger = request.app.state.ledger
    ledger.record(request.method, request.url.path, request.headers, await request.body())
    key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
    if request.method != "HEAD" and key in ("", _REFUSED_KEY):
        return _error(401, "invalid x-api-key" if key else "x-api-key header is required")
    return None


@post("/v1/messages", status_code=200)
async def _messages(request: HttpRequest, data: JSONBody[MessagesRequest], state: State) -> Response[Any]:
    position = locate(data.messages)
    faults = state.ledger.due(data, request.headers, position)
    error = next((fault for fault in faults if isinstance(fault, Error)), None)
    if error and not error.midstream:
        return _error(error.status, error.message or f"stand-in error {error.status}", error.retry_after)
    reply = reply_to(data, position)
    if data.stream:
        chunks = [server_sent(event) for event in events(reply)]
        return Stream(lambda: _deliver(chunks, faults), media_type="text/event-stream")
    body = msgspec.json.encode(message(reply))
    halves = [body[: len(body) // 2], body[len(body) // 2 :]]
    return Stream(lambda: _deliver(halves, faults), media_type="application/json")


@post("/v1/messages/count_tokens", status_code=200)
async def _count_tokens(data: JSONBody[CountTokensRequest]) -> dict[str, int]:
    return {"input_tokens": data.standing_tokens + data.message_tokens}


@get("/v1/models")
async def _models() -> dict[str, Any]:
    model = {"type": "model", "id": "stand-in", "display_name": "Stand-in", "created_at": "2026-01-01T00:00:00Z"}
    return {"data": [model], "has_more": False, "first_id": "stand-in", "last_id": "stand-in"}


@get("/_requests")
async def _requests(state: State) -> list[RecordedRequest]:
    recorded: list[RecordedRequest] = state.ledger.requests
    return recorded


@route(_ANY_PATH, http_method=["GET", "POST", "PUT", "PATCH", "DELETE"], status_code=404)
async def _anything_else(request: HttpRequest) -> dict[str, Any]:
    return error_body(404, f"no such endpoint: {request.url.path}")


@head(_ANY_PATH)
async def _head() -> None:
    """Says that somebody is here: Claude Code asks that way before its first request."""


async def _deliver(chunks: list[bytes], faults: Iterable[Fault]) -> AsyncIterator[bytes]:
    """Sends a response's body as the faults have it.

    Raises:
        _CutError: half of it was sent and a fault cuts it there.
    """
    pause = sum(fault.seconds for fault in faults if isinstance(fault, Slow))
    cut = any(isinstance(fault, Cut) for fault in faults)
    error = next((fault for fault in faults if isinstance(fault, Error)), None)
    for number, chunk in enumerate(chunks):
        if cut and number >= len(chunks) / 2:
            raise _CutError
        yield chunk
        if number == 0:
            await asyncio.sleep(sum(fault.seconds for fault in faults if isinstance(fault, Silence)))
            if error:
                yield server_sent(error_body(error.status, error.message or f"stand-in error {error.status}"))
                return
        await asyncio.sleep(pause)


def _refused(_request: HttpRequest, error: HTTPException) -> Response[Any]:
    details = f": {json.dumps(error.extra)}" if error.extra else ""
    return _error(error.status_code, f"{error.detail}{details}")


def _misunderstood(_request: HttpRequest, error: DirectiveError) -> Response[Any]:
    return _error(400, f"malformed directive {error}")


def _error(status: int, text: str, retry_after: float | None = None) -> Response[Any]:
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    return Response(error_body(status, text), status_code=status, headers=headers)


async def serve(port: int) -> None:
    """Serves until SIGTERM or SIGINT; says on stdout when it is ready."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ModelServer(port) as server:
        print(json.dumps({"event": "ready", "port": server.port}, separators=(",", ":")), flush=True)
        await stop.wait()


def main(arguments: list[str]) -> None:
    """The process's entry."""
    parser = argparse.ArgumentParser(prog="codefleet_testkit.model_server", description="Stand-in model server.")
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free one")
    asyncio.run(serve(parser.parse_args(arguments).port))


if __name__ == "__main__":
    main(sys.argv[1:])
