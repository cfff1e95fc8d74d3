"""A worker's inbox: grants arrive as Dramatiq messages and are handed to the process's own event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from typing import Any

import dramatiq
import msgspec
import structlog

from codefleet.messages import Grants
from codefleet.queueing.broker import RUN_ACTOR, GrantBroker, inbox_of

_THREADS = 2
_STOP_MILLISECONDS = 3_000

log = structlog.get_logger(__name__)


class Inbox:
    """Takes grants for one worker from `open` to `close`.

    A message is acknowledged when `accept` has returned, that is when its tasks are claimed or refused. One that
    cannot be read is dead-lettered by Dramatiq and stops nobody.
    """

    def __init__(self, broker: GrantBroker, worker_id: str, accept: Callable[[Grants], Awaitable[None]]) -> None:
        self._broker = broker
        self._worker_id = worker_id
        self._accept = accept
        self._loop = asyncio.get_running_loop()
        self._consumer: dramatiq.Worker | None = None

    def open(self) -> None:
        queue = inbox_of(self._worker_id)
        declare = dramatiq.actor(actor_name=RUN_ACTOR, queue_name=queue, broker=self._broker)
        declare(self._receive)
        self._consumer = dramatiq.Worker(self._broker, queues={queue}, worker_threads=_THREADS)
        self._consumer.start()

    async def close(self) -> None:
        """Stops taking grants; those not taken run out and are granted to somebody else."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            self._broker.wake(self._worker_id)
            await asyncio.to_thread(consumer.stop, _STOP_MILLISECONDS)
            await asyncio.to_thread(self._broker.close)

    def _receive(self, message: Any) -> None:
        grants = msgspec.convert(message, Grants)
        accepting = asyncio.run_coroutine_threadsafe(self._as_coroutine(grants), self._loop)
        try:
            accepting.result()
        except CancelledError:
            log.info("grants left behind at shutdown", count=len(grants.grants))

    async def _as_coroutine(self, grants: Grants) -> None:
        await self._accept(grants)
