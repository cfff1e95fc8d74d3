"""The outermost layer of the API: request id, authentication, metrics, and the last resort for errors."""

import itertools
import re
import time
from typing import Any
from uuid import uuid4

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from codefleet.errors import UnauthenticatedError
from services.api.context import Api
from services.api.problems import problem
from services.api.security import PUBLIC_PATHS

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
# Random once, then counted: drawing random bytes for each request costs more than all else that is done here.
_PROCESS = uuid4().hex[:16].encode()
_numbers = itertools.count(1)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")

log = structlog.get_logger(__name__)


class Edge:
    """Everything passes through here, requests for unknown routes too; nothing behind it is reached without a key
    unless its path is one of PUBLIC_PATHS.
    """

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            return
        exchange = _Exchange(scope, send)
        metrics = self._api.metrics
        metrics.in_flight.inc()
        try:
            await self._answer(scope, receive, exchange)
        finally:
            metrics.in_flight.dec()
            metrics.observe(**exchange.observation())

    async def _answer(self, scope: HTTPScope, receive: Receive, exchange: "_Exchange") -> None:
        try:
            if scope["path"] not in PUBLIC_PATHS:
                scope["user"] = await self._identify(scope)
            await self._app(scope, receive, exchange.send)
        except Exception as error:
            if exchange.status is None:
                await problem(error)(scope, receive, exchange.send)
            else:
                log.exception("answer cut short")

    async def _identify(self, scope: HTTPScope) -> Any:
        try:
            return await self._api.authenticator.identify(scope["headers"])
        except UnauthenticatedError as error:
            reason = error.details["reason"]
            self._api.metrics.auth_failures.labels(reason).inc()
            log.warning("authentication failed", reason=reason, path=scope["path"], client=scope["client"])
            raise


class _Exchange:
    """One request and its answer on the way out."""

    def __init__(self, scope: HTTPScope, send: Send) -> None:
        self.status: int | None = None
        self._scope = scope
        self._send = send
        self._started = time.perf_counter()
        self._is_stream = False
        self._request_id = _request_id(scope)
        structlog.contextvars.bind_contextvars(request_id=self._request_id.decode())

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], (b"x-request-id", self._request_id), _NO_SNIFFING]
            self._is_stream = not any(name == b"content-length" for name, _ in headers)
            message["headers"] = headers
        await self._send(message)

    def observation(self) -> dict[str, Any]:
        method = self._scope["method"]
        return {
            "method": method if method in _METHODS else "OTHER",
            "route": self._scope.get("path_template", "unknown"),
            "status": self.status or 500,
            "seconds": None if self._is_stream else time.perf_counter() - self._started,
        }


def _request_id(scope: HTTPScope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return b"%b-%x" % (_PROCESS, next(_numbers))
