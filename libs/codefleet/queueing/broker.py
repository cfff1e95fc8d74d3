"""Dramatiq as the carrier of grants, and of nothing else.

A grant that Dramatiq loses is granted again when its claim time has run out; one that it delivers twice or late is
refused by its epoch. So none of Dramatiq's own retries, delays and time limits are used.
"""

import threading
from collections.abc import Callable
from typing import Any

import dramatiq
import msgspec
import structlog
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware, ShutdownNotifications

from codefleet.messages import Grants
from codefleet.queueing.redis import CONNECT_SECONDS, REPLY_SECONDS

log = structlog.get_logger(__name__)

RUN_ACTOR = "run"
_IDLE_SECONDS = 1.0
"""How often an inbox is looked into when nobody wakes it."""
_DEAD_MESSAGE_MILLISECONDS = 24 * 3600 * 1000


def inbox_of(worker_id: str) -> str:
    """The Dramatiq queue from which one worker takes its grants."""
    return f"inbox.{worker_id}"


class _DeadLetters(Middleware):
    """Puts aside a message whose actor raised; without the middleware that retries, nobody else would."""

    def after_process_message(
        self,
        broker: dramatiq.Broker,  # noqa: ARG002 - the interface of a middleware
        message: Any,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,
    ) -> None:
        if exception is not None:
            message.fail()


class GrantBroker(RedisBroker):
    """A Redis broker whose idle consumer can be woken, instead of finding a message by polling."""

    def __init__(self, url: str, prefix: str) -> None:
        separator = "&" if "?" in url else "?"
        limits = f"socket_timeout={REPLY_SECONDS}&socket_connect_timeout={CONNECT_SECONDS}"
        super().__init__(  # type: ignore[no-untyped-call]
            url=f"{url}{separator}{limits}",
            namespace=f"{prefix}:dramatiq",
            middleware=[ShutdownNotifications(), _DeadLetters()],
            dead_message_ttl=_DEAD_MESSAGE_MILLISECONDS,
        )
        self._wakers: dict[str, threading.Event] = {}

    @property
    def consumer_class(self) -> Callable[..., Any]:
        return _waking_consumer(super().consumer_class)

    def waker_of(self, queue_name: str) -> threading.Event:
        """What the consumer of a queue waits for while that queue is empty."""
        return self._wakers.setdefault(queue_name, threading.Event())

    def wake(self, worker_id: str) -> None:
        """Makes a worker's consumer look into its inbox now. May be called from any thread."""
        self.waker_of(inbox_of(worker_id)).set()

    def send_grants(self, worker_id: str, grants: Grants) -> None:
        """Puts grants into a worker's inbox. Blocks for one round trip.

        Raises:
            redis.RedisError: Redis is away; the grants run out and are made again.
        """
        self.enqueue(
            dramatiq.Message(
                queue_name=inbox_of(worker_id),
                actor_name=RUN_ACTOR,
                args=(msgspec.to_builtins(grants),),
                kwargs={},
                options={},
            ),
        )

    def discard_inbox(self, worker_id: str) -> None:
        """Drops what a worker that is no more has left in its inbox. Blocks for one round trip."""
        self.flush(inbox_of(worker_id))


def _waking_consumer(base: Any) -> Callable[..., Any]:
    class WakingConsumer(base):  # type: ignore[misc]
        def __init__(self, broker: GrantBroker, queue_name: str, prefetch: int, timeout: int) -> None:  # noqa: ARG002
            # A time-out of nothing makes the base class return at once instead of sleeping between polls.
            super().__init__(broker, queue_name, prefetch, 0)
            self._woken = broker.waker_of(queue_name)

        def __next__(self) -> Any:
            try:
                message = super().__next__()
            except (dramatiq.errors.DecodeError, TypeError) as error:
                # Left to itself it would end this consumer, and with it what else was fetched.
                log.warning("message not understood", queue=self.queue_name, error=str(error))
                return None
            if message is None:
                self._woken.wait(_IDLE_SECONDS)
                self._woken.clear()
            return message

        def ack(self, message: Any) -> None:
            super().ack(message)
            self._woken.set()  # there is room for another message now

    return WakingConsumer
