"""The OpenAPI document, which needs a key, and a page that shows it, which does not."""

from pathlib import Path

from litestar import get
from litestar.types import ASGIApp

from services.api.context import ApiRequest
from services.api.documentation import documented
from services.api.openapi import openapi_document
from services.api.replies import Reply, bare_json, content
from services.api.security import PREFIX

_STATIC = Path(__file__).parent.parent / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@get(
    f"{PREFIX}/openapi.json",
    opt=documented(
        summary="This document",
        tag="documentation",
        media_types={"application/json": "an OpenAPI 3.1 document"},
    ),
)
async def openapi(request: ApiRequest) -> ASGIApp:
    return bare_json(openapi_document(request.app))


@get(f"{PREFIX}/docs")
async def page() -> ASGIApp:
    return _file("docs.html", "text/html; charset=utf-8")


@get(f"{PREFIX}/docs/docs.css")
async def style() -> ASGIApp:
    return _file("docs.css", "text/css; charset=utf-8")


@get(f"{PREFIX}/docs/docs.js")
async def script() -> ASGIApp:
    return _file("docs.js", "text/javascript; charset=utf-8")


def _file(name: str, media_type: str) -> Reply:
    return content((_STATIC / name).read_bytes(), media_type, headers=[(b"content-security-policy", _POLICY.encode())])


HANDLERS = [openapi, page, style, script]
