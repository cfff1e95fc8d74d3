"""The API as one ASGI application."""

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.types import ASGIApp

from services.api.context import Api
from services.api.edge import Edge
from services.api.problems import EXCEPTION_HANDLERS
from services.api.reading import MAX_BODY_BYTES
from services.api.routes import docs, health, queues, streams, tasks, workers
from services.api.security import PREFIX


def create_app(api: Api) -> ASGIApp:
    """The whole application; `api` is opened and closed by the caller."""
    versioned = Router(
        PREFIX,
        route_handlers=[*tasks.HANDLERS, *streams.HANDLERS, *queues.HANDLERS, *workers.HANDLERS],
    )
    litestar = Litestar(
        route_handlers=[versioned, *health.HANDLERS, *docs.HANDLERS],
        exception_handlers=EXCEPTION_HANDLERS,
        request_max_body_size=MAX_BODY_BYTES,
        # Ours is made from the same structs that requests are read into, and needs a key.
        openapi_config=None,
        logging_config=None,
        state=State({"api": api}),
    )
    return Edge(litestar, api)
