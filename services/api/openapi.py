"""The OpenAPI document, made from the routes and from the structs that requests are read into."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

from services.api.documentation import Documented
from services.api.security import PUBLIC_PATHS

_REASONS = {
    304: "Not modified",
    400: "The request could not be read",
    401: "No valid API key",
    403: "The key's role does not allow this",
    404: "There is no such task, or it belongs to somebody else",
    409: "The request does not fit the present state",
    413: "The body is larger than 2 MiB",
    415: "The body is not plain JSON",
    422: "A value is not acceptable; `details` has `field` and `reason`",
    503: "A store is away; try again after `Retry-After` seconds",
}
_ALWAYS = (401, 503)


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    details: dict[str, Any]


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every error has this shape."""

    success: bool
    error: ErrorBody
    timestamp: str


def openapi_document(app: Litestar) -> dict[str, Any]:
    """An OpenAPI 3.1 document of every documented route of `app`."""
    operations = list(_operations(app))
    types = {type_ for _, _, _, facts in operations for type_ in (facts.query, facts.body, facts.answer) if type_}
    _, components = msgspec.json.schema_components(
        [*sorted(types, key=lambda type_: type_.__name__), ErrorAnswer],
        ref_template="#/components/schemas/{name}",
    )
    paths: dict[str, Any] = {}
    for path, method, handler, facts in operations:
        paths.setdefault(path, {})[method] = _operation(path, handler.handler_name, facts, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "codefleet",
            "version": version("codefleet"),
            "description": "Runs AI coding agents as dependable background jobs.",
        },
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operations(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler, Documented]]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            facts = handler.opt.get("documented")
            if facts is not None:
                for method in handler.http_methods:
                    yield route.path_format, method.lower(), handler, facts


def _operation(path: str, name: str, facts: Documented, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name + ("" if path.startswith("/api/") else "_at_root"),
        "summary": facts.summary,
        "tags": [facts.tag],
        "parameters": list(_parameters(path, facts, components)),
        "responses": _responses(path, facts),
    }
    if facts.body is not None:
        operation["requestBody"] = {
            "required": facts.body_required,
            "content": {
                "application/json": {
                    "schema": _reference(facts.body),
                    "examples": {name: {"value": value} for name, value in facts.examples.items()},
                },
            },
        }
    if path in PUBLIC_PATHS:
        operation["security"] = []
    return operation


def _parameters(path: str, facts: Documented, components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "{task_id}" in path:
        yield {
            "name": "task_id",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "format": "uuid"},
        }
    if facts.query is not None:
        for name, schema in components[facts.query.__name__]["properties"].items():
            yield {"name": name, "in": "query", "required": False, "schema": schema}
    for name, description in facts.headers.items():
        yield {
            "name": name,
            "in": "header",
            "required": False,
            "description": description,
            "schema": {"type": "string"},
        }


def _responses(path: str, facts: Documented) -> dict[str, Any]:
    content: dict[str, Any] = {
        media_type: {"schema": {"type": "string", "description": description}}
        for media_type, description in facts.media_types.items()
    }
    if facts.answer is not None:
        content["application/json"] = {"schema": _answer(facts)}
    responses: dict[str, Any] = {str(facts.status): {"description": "Done", "content": content}}
    for status in sorted({*facts.errors, *(() if path in PUBLIC_PATHS else _ALWAYS)}):
        responses[str(status)] = {"description": _REASONS[status]} | _error_content(status, facts)
    return responses


def _error_content(status: int, facts: Documented) -> dict[str, Any]:
    if status < 400:  # noqa: PLR2004 - the first status that is an error
        return {}
    schema = _reference(facts.answer) if facts.bare else _reference(ErrorAnswer)
    return {"content": {"application/json": {"schema": schema}}}


def _answer(facts: Documented) -> dict[str, Any]:
    if facts.bare:
        return _reference(facts.answer)
    return {
        "type": "object",
        "required": ["success", "data"],
        "properties": {"success": {"const": True}, "data": _reference(facts.answer)},
    }


def _reference(type_: Any) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{type_.__name__}"}
