"""The executor-cursor service."""

import asyncio

from codefleet.domain.queues import Executor
from codefleet.execution.worker import serve_executor
from codefleet.settings import Settings
from services.executor_cursor.driver import CursorDriver


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Runs tasks for the Cursor CLI until `stop`."""
    driver = CursorDriver(binary=settings.cursor_binary, data_dir=settings.data_dir)
    await serve_executor(Executor.CURSOR, driver, settings, stop)
