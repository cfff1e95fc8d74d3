"""Queues: how much waits and how much runs."""

import asyncio
from datetime import datetime

from litestar import get
from litestar.types import ASGIApp

from codefleet.clock import utc_now
from codefleet.domain.queues import Queue
from codefleet.domain.tasks import Task
from codefleet.domain.workers import Worker, WorkerState
from codefleet.errors import UnavailableError
from codefleet.service import Stores
from services.api.context import ApiRequest, api_of
from services.api.deadline import in_time
from services.api.documentation import documented
from services.api.replies import success
from services.api.schemas.queues import QueueList, QueueView

_REDIS_SECONDS = 1.0


@get("/queues", opt=documented(summary="Look at the queues", tag="fleet", answer=QueueList))
async def list_queues(request: ApiRequest) -> ASGIApp:
    stores = api_of(request).stores
    depths, running, workers, oldest = await asyncio.gather(
        _depths(stores),
        in_time(stores.tasks.count_running_by_queue()),
        in_time(stores.workers.present()),
        in_time(asyncio.gather(*(stores.tasks.oldest_ready(queue) for queue in Queue))),
    )
    now = utc_now()
    items = [
        _view(queue, depths, running.get(queue, 0), workers, _age(task, now))
        for queue, task in zip(Queue, oldest, strict=True)
    ]
    return success(QueueList(items=items, degraded=depths is None))


async def _depths(stores: Stores) -> dict[Queue, int] | None:
    """How many tasks are ready in each queue; None if Redis does not say so soon."""
    try:
        async with asyncio.timeout(_REDIS_SECONDS):
            depths = await asyncio.gather(*(stores.ready.depth(queue) for queue in Queue))
    except (UnavailableError, TimeoutError):
        return None
    return dict(zip(Queue, depths, strict=True))


def _view(
    queue: Queue,
    depths: dict[Queue, int] | None,
    running: int,
    workers: list[Worker],
    oldest_waiting_seconds: float | None,
) -> QueueView:
    serving = [worker for worker in workers if queue in worker.queues and worker.state is WorkerState.ONLINE]
    return QueueView(
        name=queue,
        waiting=None if depths is None else depths[queue],
        running=running,
        workers=len(serving),
        slots=sum(worker.slots for worker in serving),
        oldest_waiting_seconds=oldest_waiting_seconds,
    )


def _age(task: Task | None, now: datetime) -> float | None:
    if task is None:
        return None
    return max(0.0, (now - (task.scheduled_at or task.created_at)).total_seconds())


HANDLERS = [list_queues]
