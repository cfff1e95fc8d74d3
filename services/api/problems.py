"""Errors as answers: one shape, the right status, and never a stack trace."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from litestar.connection import Request
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, ExceptionHandlersMap

from codefleet.clock import utc_now
from codefleet.errors import CodefleetError, UnauthenticatedError, UnavailableError
from services.api.replies import Header, Reply, encode

log = structlog.get_logger(__name__)

# Litestar's own refusals, in our words.
_CODES = {
    HTTPStatus.BAD_REQUEST: ("MALFORMED_REQUEST", "The request could not be read"),
    HTTPStatus.NOT_FOUND: ("NOT_FOUND", "There is nothing at this path"),
    HTTPStatus.METHOD_NOT_ALLOWED: ("METHOD_NOT_ALLOWED", "This path does not take this method"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("PAYLOAD_TOO_LARGE", "The request body is larger than 2 MiB"),
}


class UnsupportedMediaTypeError(CodefleetError):
    """A body that is not plain JSON."""

    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"


def problem(error: Exception) -> Reply:
    """The answer that tells a client of `error`; what is not meant for clients becomes a bare 500."""
    match error:
        case CodefleetError():
            return _reply(error.status, error.code, error.message, error.details, _headers_of(error))
        case HTTPException(status_code=status) if status in _CODES:
            code, message = _CODES[HTTPStatus(status)]
            allow = (error.headers or {}).get("allow")
            return _reply(status, code, message, {}, [(b"allow", allow.encode())] if allow else [])
        case _:
            log.error("request failed", exc_info=error)
            return _reply(500, CodefleetError.code, "Something went wrong on our side; it has been logged", {}, [])


def _headers_of(error: CodefleetError) -> list[Header]:
    match error:
        case UnauthenticatedError():
            return [(b"www-authenticate", b'Bearer realm="codefleet"')]
        case UnavailableError(retry_after_seconds=seconds):
            return [(b"retry-after", b"%d" % seconds)]
        case _:
            return []


def _reply(status: int, code: str, message: str, details: Mapping[str, Any], headers: list[Header]) -> Reply:
    body = {
        "success": False,
        "error": {"code": code, "message": message, "details": dict(details)},
        "timestamp": utc_now(),
    }
    return Reply(encode(body), status=status, headers=[(b"content-type", b"application/json"), *headers])


def _as_response(_: Request[Any, Any, Any], error: Exception) -> Any:
    return _Response(problem(error))


class _Response:
    """What Litestar expects of an exception handler: something that it can turn into an ASGI application."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def to_asgi_response(self, **_: Any) -> ASGIApp:
        return self._reply


EXCEPTION_HANDLERS: ExceptionHandlersMap = {Exception: _as_response, HTTPException: _as_response}
