"""A worker's inbox: grants arrive as Dramatiq messages and are handed to the process's own event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import dramatiq
import msgspec

from codefleet.messages import Grants
from codefleet.queueing.broker import RUN_ACTOR, GrantBroker, inbox_of

_THREADS = 2
_STOP_MILLISECONDS = 3_000


class Inbox:
    """Takes grants for one worker from `open` to `close`.

    A message is acknowledged once it has been handed over: its threads never wait for a store. Grants that die with
    the process before they are claimed run out and are made again. A message that cannot be read is dead-lettered by
    Dramatiq and stops nobody.
    """

    def __init__(
        self, broker: GrantBroker, worker_id: str, accept: Callable[[Grants], Coroutine[Any, Any, None]]
    ) -> None:
        self._broker = broker
        self._worker_id = worker_id
        self._accept = accept
        self._loop = asyncio.get_running_loop()
        self._consumer: dramatiq.Worker | None = None
        self._accepting: set[asyncio.Task[None]] = set()

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
        if self._accepting:
            await asyncio.wait(self._accepting)

    def _receive(self, message: Any) -> None:
        grants = msgspec.convert(message, Grants)
        self._loop.call_soon_threadsafe(self._hand_over, grants)

    def _hand_over(self, grants: Grants) -> None:
        accepting = self._loop.create_task(self._accept(grants))
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepting.discard)
