"""The OpenAPI document and the page that shows it."""

import re
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar

from services.api.schemas.tasks import TaskSubmission

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


async def test_every_route_is_documented_except_the_page_itself(admin, api):
    paths = (await admin.get("/openapi.json")).json()["paths"]
    documented = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    app: Litestar = (await _litestar(api)).app
    routed = {
        (method, route.path_format)
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method in METHODS
    }
    page = {("GET", f"/api/v1/docs{name}") for name in ("", "/docs.css", "/docs.js")}
    assert routed - documented == page
    assert documented <= routed


async def _litestar(api: Any) -> Any:
    from services.api.app import create_app

    class Held:
        app: Litestar = create_app(api)._app  # type: ignore[attr-defined]

    return Held


async def test_the_document_describes_bodies_errors_and_keys(admin):
    document = (await admin.get("/openapi.json")).json()
    submit = document["paths"]["/api/v1/tasks"]["post"]
    assert set(submit["responses"]) == {"202", "400", "401", "403", "409", "413", "415", "422", "503"}
    body = submit["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        msgspec.convert(example["value"], TaskSubmission)
    schemas = document["components"]["schemas"]
    assert schemas["TaskSubmission"]["properties"]["max_retries"]["maximum"] == 100
    assert set(document["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    operation_ids = [
        operation["operationId"] for operations in document["paths"].values() for operation in operations.values()
    ]
    assert len(operation_ids) == len(set(operation_ids))


async def test_every_reference_of_the_document_leads_somewhere(admin):
    response = await admin.get("/openapi.json")
    schemas = response.json()["components"]["schemas"]
    references = re.findall(r'"\$ref":"#/components/schemas/([^"]+)"', response.text)
    assert references
    assert set(references) <= set(schemas)


async def test_the_page_is_public_and_loads_nothing_from_elsewhere(anonymous):
    for name, media_type in (("", "text/html"), ("/docs.css", "text/css"), ("/docs.js", "text/javascript")):
        response = await anonymous.get(f"/docs{name}")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(media_type)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert not re.search(r"https?://", response.text)
    assert (await anonymous.get("/openapi.json")).status_code == 401


def test_the_page_puts_nothing_into_itself_as_markup():
    script = Path("services/api/static/docs.js").read_text(encoding="utf-8")
    assert "innerHTML" not in script
    assert "localStorage" not in script
