"""The monitor service."""

import asyncio

from codefleet.http_server import serve_http
from codefleet.service import announce_ready, open_stores, run_service
from codefleet.settings import Settings
from services.monitor.app import create_app
from services.monitor.collector import Collector


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Serves metrics until `stop` is set."""
    async with open_stores(settings) as stores:
        await serve_http(
            create_app(Collector(stores)),
            host=settings.host,
            port=settings.monitor_port,
            stop=stop,
            ready=lambda: announce_ready(url=f"http://{settings.host}:{settings.monitor_port}/metrics"),
        )


if __name__ == "__main__":
    run_service("monitor", main)
