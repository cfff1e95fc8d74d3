"""How much waits and how much runs in each queue: one reading for whoever shows it."""

import asyncio
from datetime import datetime

import msgspec

from codefleet.clock import utc_now
from codefleet.domain.queues import Queue
from codefleet.errors import UnavailableError
from codefleet.queueing.ready_index import ReadyIndex
from codefleet.storage.tasks import TaskRepository

_REDIS_SECONDS = 1.0


class QueueFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One queue now.

    Args:
        ready: tasks in the ready index; None while Redis is away.
        running: tasks that a worker holds.
        oldest_waiting_seconds: how long that task has been able to start which has waited longest; None if none waits.
    """

    ready: int | None
    running: int
    oldest_waiting_seconds: float | None


async def read_queues(tasks: TaskRepository, ready: ReadyIndex) -> dict[Queue, QueueFigures]:
    """Raises UnavailableError while MongoDB is away; without Redis the rest is still told."""
    depths, running, since = await asyncio.gather(
        _depths(ready),
        tasks.count_running_by_queue(),
        asyncio.gather(*(tasks.waiting_since(queue) for queue in Queue)),
    )
    now = utc_now()
    return {
        queue: QueueFigures(
            ready=None if depths is None else depths[queue],
            running=running.get(queue, 0),
            oldest_waiting_seconds=_age(moment, now),
        )
        for queue, moment in zip(Queue, since, strict=True)
    }


async def _depths(ready: ReadyIndex) -> dict[Queue, int] | None:
    """How many tasks are ready in each queue; None if Redis does not say so soon."""
    try:
        async with asyncio.timeout(_REDIS_SECONDS):
            depths = await asyncio.gather(*(ready.depth(queue) for queue in Queue))
    except (UnavailableError, TimeoutError):
        return None
    return dict(zip(Queue, depths, strict=True))


def _age(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, (now - since).total_seconds())
