"""The life of an API process: open, serve, stop in order."""

import asyncio
import contextlib
import functools
import gc
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from codefleet.domain.identity import Identity, Role
from codefleet.errors import ConfigurationError, UnavailableError
from codefleet.http_server import free_address, listening, until_stopped
from codefleet.service import Stores, announce_ready, open_stores
from codefleet.settings import Settings
from services.api.app import create_app
from services.api.context import Api
from services.api.hub import Hub
from services.api.metrics import Metrics
from services.api.ready_feed import ReadyFeed
from services.api.security import Authenticator

BOOTSTRAP_VARIABLE = "CODEFLEET_BOOTSTRAP_API_KEY"
_RETRY_SECONDS = 0.5
_FEED_SECONDS = 1.0
_COLLECT_AFTER_OBJECTS = 20_000


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set; raises ConfigurationError if it cannot serve at all."""
    free_address(settings.host, settings.port)
    async with open_stores(settings) as stores, open_api(settings, stores) as api:
        await store_bootstrap_key(stores)
        app = create_app(api)
        closing = functools.partial(close_streams, api)
        async with listening(app, host=settings.host, port=settings.port, closing=closing) as server:
            _calm_garbage_collector()
            announce_ready(url=f"http://{settings.host}:{settings.port}")
            await until_stopped(server, stop)


@asynccontextmanager
async def open_api(settings: Settings, stores: Stores) -> AsyncIterator[Api]:
    """Everything that requests work with; on the way out, lets go of who waits and finishes the ready feed."""
    metrics = Metrics()
    api = Api(
        settings=settings,
        stores=stores,
        authenticator=Authenticator(stores.api_keys),
        feed=ReadyFeed(stores.ready, stores.notices, settings.redis_prefix),
        hub=Hub(stores.redis, settings.redis_prefix, metrics),
        metrics=metrics,
        started_at=time.monotonic(),
        closing=asyncio.Event(),
    )
    reading = asyncio.create_task(api.hub.run())
    try:
        yield api
    finally:
        close_streams(api)
        reading.cancel()
        await asyncio.wait({reading})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FEED_SECONDS):
                await api.feed.close()


def close_streams(api: Api) -> None:
    """Ends streams and long polls at their next step; a client resumes them elsewhere."""
    api.closing.set()
    api.hub.wake_all()


async def store_bootstrap_key(stores: Stores) -> None:
    """Makes the admin key of the environment valid, if there is one.

    Raises:
        ConfigurationError: it does not have the form of a key.
    """
    key = os.environ.get(BOOTSTRAP_VARIABLE)
    while key:
        try:
            await stores.api_keys.store(key, Identity(user_id="admin", role=Role.ADMIN))
        except ValueError as error:
            raise ConfigurationError(f"{BOOTSTRAP_VARIABLE}: {error}") from None
        except UnavailableError:
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


def _calm_garbage_collector() -> None:
    """Keeps what lives as long as the process out of every collection, and collects less often.

    Measured with 100 connections: requests' p95 falls from 44 to 15 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)
