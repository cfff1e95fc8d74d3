"""The executor-claude service."""

import asyncio

from codefleet.domain.queues import Executor
from codefleet.execution.worker import serve_executor
from codefleet.settings import Settings
from services.executor_claude.cli_driver import ClaudeCliDriver


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Runs tasks for the Claude Code CLI until `stop`."""
    driver = ClaudeCliDriver(binary=settings.claude_binary, data_dir=settings.data_dir)
    await serve_executor(Executor.CLAUDE, driver, settings, stop)
