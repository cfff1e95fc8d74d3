"""The monitor service."""

import asyncio

from codefleet.http_server import listening, until_stopped
from codefleet.service import announce_ready, open_stores, run_service
from codefleet.settings import Settings
from services.monitor.app import create_app
from services.monitor.collector import Collector


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Serves metrics until `stop` is set; raises ConfigurationError if it cannot serve at all."""
    async with open_stores(settings) as stores:
        app = create_app(Collector(stores))
        async with listening(app, host=settings.host, port=settings.monitor_port) as server:
            announce_ready(url=f"http://{settings.host}:{settings.monitor_port}/metrics")
            await until_stopped(server, stop)


if __name__ == "__main__":
    run_service("monitor", main)
