"""What every service process is made of: settings, logs, signals and open stores."""

import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
import uvloop
from redis.asyncio import Redis

from codefleet.errors import ConfigurationError
from codefleet.observability.logging import configure_logging
from codefleet.queueing.ready_index import ReadyIndex
from codefleet.queueing.redis import open_redis
from codefleet.queueing.streams import StreamWriter
from codefleet.settings import Settings, load_settings
from codefleet.storage.api_keys import ApiKeyRepository
from codefleet.storage.documents import DOCUMENTS
from codefleet.storage.logs import LogRepository
from codefleet.storage.mongo import Mongo, open_mongo
from codefleet.storage.tasks import TaskRepository
from codefleet.storage.workers import WorkerRepository

log = structlog.get_logger(__name__)

ServiceMain = Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]]
_USAGE_ERROR = 2
_SWITCH_SECONDS = 0.0005
_PR_SET_DUMPABLE = 4


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """The open stores of a process."""

    mongo: Mongo
    redis: Redis
    tasks: TaskRepository
    logs: LogRepository
    workers: WorkerRepository
    api_keys: ApiKeyRepository
    ready: ReadyIndex
    notices: StreamWriter


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """Opens MongoDB, waiting until it answers, and a Redis client, which connects when it is first used."""
    async with (
        open_mongo(settings.mongo_url, settings.mongo_database, DOCUMENTS) as mongo,
        open_redis(settings.redis_url) as redis,
    ):
        notices = StreamWriter(redis)
        try:
            yield Stores(
                mongo=mongo,
                redis=redis,
                tasks=TaskRepository(mongo),
                logs=LogRepository(mongo),
                workers=WorkerRepository(mongo),
                api_keys=ApiKeyRepository(),
                ready=ReadyIndex(redis, settings.redis_prefix),
                notices=notices,
            )
        finally:
            await notices.close()


def run_service(name: str, main: ServiceMain) -> None:
    """Runs a service until SIGTERM or SIGINT, which set the event that `main` is given. Ends the process."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        print(error.message, file=sys.stderr)  # noqa: T201 - logs are not set up yet
        sys.exit(_USAGE_ERROR)
    configure_logging(name, settings.log_format)
    # Drivers of MongoDB and Dramatiq hop between threads on every call; the default of 5 ms a hop would be most of a
    # task's latency as soon as the event loop has something to do.
    sys.setswitchinterval(_SWITCH_SECONDS)
    _hide_from_neighbours()
    uvloop.run(_with_signals(main, settings))


def _hide_from_neighbours() -> None:
    """Keeps other processes of the same user, agents among them, from reading this one's environment and memory."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def _with_signals(main: ServiceMain, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(main(settings, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not _announced.is_set():
        # Opening waits for MongoDB as long as it takes; whoever is asked to stop meanwhile has nothing to finish.
        serving.cancel()
    await asyncio.wait({serving})
    if serving.cancelled():
        return
    try:
        serving.result()
    except ConfigurationError as error:
        log.error("cannot serve", reason=error.message)  # noqa: TRY400 - the message says it all
        raise SystemExit(1) from None


def announce_ready(**fields: object) -> None:
    """Tells whoever started this process that it is up."""
    _announced.set()
    log.info("service ready", pid=os.getpid(), **fields)


_announced = threading.Event()
