"""Answers, encoded once and sent as they are."""

from collections.abc import Iterable
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

Header = tuple[bytes, bytes]
_JSON = (b"content-type", b"application/json")
_encoder = msgspec.json.Encoder()
encode = _encoder.encode


class Reply:
    """A whole answer, as an ASGI application."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, body: bytes, *, status: int = 200, headers: Iterable[Header] = ()) -> None:
        self._body = body
        self._status = status
        self._headers = [*headers, (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the ASGI signature
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def envelope(data: Any) -> bytes:
    return b'{"success":true,"data":' + encode(data) + b"}"


def success(data: Any, *, status: int = 200, headers: Iterable[Header] = ()) -> Reply:
    return Reply(envelope(data), status=status, headers=(_JSON, *headers))


def bare_json(value: Any, *, status: int = 200) -> Reply:
    """JSON without the envelope, for probes and documents that others define."""
    return Reply(encode(value), status=status, headers=(_JSON,))


def content(body: bytes, media_type: str, *, headers: Iterable[Header] = ()) -> Reply:
    return Reply(body, headers=((b"content-type", media_type.encode()), *headers))
