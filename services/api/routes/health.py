"""Health and metrics, for probes, people and Prometheus."""

import time
from typing import Any

from litestar import get
from litestar.types import ASGIApp
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.api.context import Api, ApiRequest, api_of
from services.api.documentation import documented
from services.api.health import health_of, is_ready
from services.api.replies import bare_json, content, success
from services.api.schemas.health import Health, Probe
from services.api.security import PREFIX, require_sees_all

_READY_SECONDS = 1.0
"""How long an answer of the readiness probe holds: it needs no key, so it must not be a way to load MongoDB."""


@get(
    ["/health/live", f"{PREFIX}/health/live"],
    opt=documented(summary="Does this process answer?", tag="health", answer=Probe, bare=True),
)
async def live() -> ASGIApp:
    return bare_json(Probe(status="alive"))


@get(
    ["/health/ready", f"{PREFIX}/health/ready"],
    opt=documented(summary="Can this process do its work?", tag="health", answer=Probe, bare=True, errors=(503,)),
)
async def ready(request: ApiRequest) -> ASGIApp:
    if await _ready_lately(api_of(request), request.app.state):
        return bare_json(Probe(status="ready"))
    return bare_json(Probe(status="unavailable"), status=503)


async def _ready_lately(api: Api, state: Any) -> bool:
    known, at = state.get("ready", (False, 0.0))
    if api.closing.is_set() or time.monotonic() - at < _READY_SECONDS:
        return bool(known) and not api.closing.is_set()
    known = await is_ready(api)
    state["ready"] = known, time.monotonic()
    return bool(known)


@get(
    f"{PREFIX}/health",
    opt=documented(summary="What codefleet needs, and how it is", tag="health", answer=Health),
)
async def health(request: ApiRequest) -> ASGIApp:
    return success(await health_of(api_of(request)))


@get(
    ["/metrics", f"{PREFIX}/metrics"],
    opt=documented(
        summary="Metrics of this process",
        tag="health",
        media_types={"text/plain": "Prometheus text format"},
        errors=(403,),
    ),
)
async def metrics(request: ApiRequest) -> ASGIApp:
    require_sees_all(request.user)
    return content(api_of(request).metrics.text(), CONTENT_TYPE_LATEST)


HANDLERS = [live, ready, health, metrics]
