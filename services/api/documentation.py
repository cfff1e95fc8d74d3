"""How a route documents itself: the facts that its signature does not say."""

from typing import Any

import msgspec


class Documented(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of the OpenAPI document.

    Args:
        query: struct whose fields are the query parameters.
        body: what the request body is decoded to; `body_required` tells if it may be left out.
        answer: the type of `data` in the envelope, or, if `bare`, of the whole answer.
        media_types: other forms of the answer, as media type → description.
        errors: statuses beside 401 and 503, which every protected route can answer.
        headers: request headers, as name → description.
        examples: of the body, as name → value.
    """

    summary: str
    tag: str
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    body_required: bool = True
    answer: Any = None
    bare: bool = False
    status: int = 200
    media_types: dict[str, str] = {}
    errors: tuple[int, ...] = ()
    headers: dict[str, str] = {}
    examples: dict[str, Any] = {}


def documented(**facts: Any) -> dict[str, Any]:
    """The `opt` of a route handler."""
    return {"documented": Documented(**facts)}
