"""The monitor's HTTP face: metrics for Prometheus, and its own health."""

from litestar import Litestar, MediaType, Response, get
from prometheus_client import CONTENT_TYPE_LATEST

from codefleet.errors import UnavailableError
from services.monitor.collector import Collector
from services.monitor.metrics import exposition


def create_app(collector: Collector) -> Litestar:
    """Binds to loopback unless configured otherwise: whoever reaches it may read it."""

    @get("/metrics", media_type=MediaType.TEXT)
    async def metrics() -> Response[bytes]:
        try:
            reading = await collector.read()
        except UnavailableError as error:
            return Response(error.message.encode(), status_code=error.status, media_type=MediaType.TEXT)
        return Response(exposition(reading), media_type=CONTENT_TYPE_LATEST)

    @get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    return Litestar(route_handlers=[metrics, live], openapi_config=None, logging_config=None)
