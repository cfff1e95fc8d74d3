"""Who waits for changes of which task. One reader of the event stream wakes them all."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis

from codefleet.errors import UnavailableError
from codefleet.messages import TaskChanged
from codefleet.queueing.streams import events_stream, read_stream
from services.api.metrics import Metrics

MAX_SUBSCRIBERS = 2_000
REREAD_SECONDS = 2.0
"""How long a subscriber trusts silence: Redis, which carries the notices, may be away."""


class Subscription:
    """One subscriber's wish to look at a task again."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def changed(self, *, seconds: float = REREAD_SECONDS) -> None:
        """Returns when the task may have changed, at the latest after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()


class Hub:
    def __init__(self, redis: Redis, prefix: str, metrics: Metrics) -> None:
        self._redis = redis
        self._stream = events_stream(prefix)
        self._metrics = metrics
        self._subscriptions: dict[str, set[Subscription]] = defaultdict(set)
        self._count = 0

    @property
    def subscribers(self) -> int:
        return self._count

    def check_room(self) -> None:
        """Raises UnavailableError while this process has as many subscribers as it can serve."""
        if self._count >= MAX_SUBSCRIBERS:
            raise UnavailableError("Too many open streams; try again shortly", retry_after_seconds=5)

    @contextmanager
    def subscribed(self, task_id: str) -> Iterator[Subscription]:
        """Wakes the subscription at every change of the task."""
        subscription = Subscription()
        self._subscriptions[task_id].add(subscription)
        self._changed(1)
        try:
            yield subscription
        finally:
            self._changed(-1)
            self._subscriptions[task_id].discard(subscription)
            if not self._subscriptions[task_id]:
                del self._subscriptions[task_id]

    async def run(self) -> None:
        """Reads the event stream for ever."""
        async for notice in read_stream(self._redis, self._stream, TaskChanged):
            for subscription in self._subscriptions.get(notice.task_id, ()):
                subscription.wake()

    def wake_all(self) -> None:
        """Lets every subscriber look around, because the process is closing."""
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.wake()

    def _changed(self, by: int) -> None:
        self._count += by
        self._metrics.subscribers.set(self._count)
