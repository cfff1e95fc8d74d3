"""What clients send: JSON bodies, query strings, a few headers. What does not fit is refused precisely."""

import re
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
from litestar.exceptions import InternalServerException

from codefleet.errors import InvalidFieldError, MalformedRequestError
from services.api.context import ApiRequest
from services.api.problems import UnsupportedMediaTypeError

Value = TypeVar("Value")
MAX_BODY_BYTES = 2 * 1024 * 1024
_MAX_QUERY_FIELDS = 100
_NUL_IN_JSON = b"\\u0000"
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING_FIELD = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


async def read_json(request: ApiRequest, decoder: msgspec.json.Decoder[Value]) -> Value:
    """The request's body as what `decoder` makes of it.

    Raises:
        UnsupportedMediaTypeError: it is not plain JSON.
        MalformedRequestError: it is not well-formed.
        InvalidFieldError: naming the field at fault.
    """
    _check_media_type(request)
    body = await _body(request)
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequestError(f"The body is not well-formed JSON: {error}") from None
    if _NUL_IN_JSON in body:
        check_no_nul(msgspec.to_builtins(value), "")
    return value


async def _body(request: ApiRequest) -> bytes:
    try:
        return await request.body()
    except InternalServerException as error:
        # Litestar's word for a client that goes away in the middle; nobody hears the answer.
        raise MalformedRequestError("The body ended before its announced length") from error


def read_query(request: ApiRequest, wanted: type[Value]) -> Value:
    """The query string as a struct; a field that is a list takes several values, repeated or separated by commas.

    Raises:
        InvalidFieldError: naming the parameter that is unknown, repeated or wrong.
    """
    raw = request.scope["query_string"]
    if not raw:
        return wanted()
    try:
        pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError as error:
        raise InvalidFieldError("", f"the query string cannot be read: {error}") from None
    try:
        return msgspec.convert(_gathered(pairs, _list_fields(cast("Hashable", wanted))), wanted, strict=False)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None


def header(request: ApiRequest, wanted: bytes) -> str | None:
    for name, value in request.scope["headers"]:
        if name == wanted:
            return value.decode("latin-1")
    return None


def invalid_field(error: msgspec.ValidationError) -> InvalidFieldError:
    """A complaint of msgspec as field and reason."""
    message, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    for pattern, reason in ((_UNKNOWN_FIELD, "is not known"), (_MISSING_FIELD, "is required")):
        if match := pattern.fullmatch(message):
            return InvalidFieldError(f"{path}.{match[1]}".lstrip("."), reason)
    return InvalidFieldError(path, message)


def check_no_nul(value: Any, field: str) -> None:
    """Raises InvalidFieldError for a NUL character in any string of a JSON value, keys included."""
    match value:
        case str() if "\0" in value:
            raise InvalidFieldError(field, "must not contain a NUL character")
        case Mapping():
            for key, item in value.items():
                check_no_nul(key, field)
                check_no_nul(item, f"{field}.{key}".lstrip("."))
        case list():
            for index, item in enumerate(value):
                check_no_nul(item, f"{field}[{index}]")


def _check_media_type(request: ApiRequest) -> None:
    media_type = (header(request, b"content-type") or "application/json").lower()
    name, _, parameters = media_type.partition(";")
    if name.strip() != "application/json" or parameters.replace(" ", "") not in {"", "charset=utf-8"}:
        raise UnsupportedMediaTypeError("Expected a body of type application/json in UTF-8")
    if header(request, b"content-encoding") not in {None, "identity"}:
        raise UnsupportedMediaTypeError("Expected a body without content encoding")


def _gathered(pairs: list[tuple[str, str]], lists: frozenset[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            values.setdefault(name, []).extend(part for part in value.split(",") if part)
        elif name in values:
            raise InvalidFieldError(name, "was given more than once")
        else:
            values[name] = value
    return values


@lru_cache(64)
def _list_fields(wanted: Any) -> frozenset[str]:
    fields = msgspec.structs.fields(wanted)
    return frozenset(field.encode_name for field in fields if field.default_factory is list)
