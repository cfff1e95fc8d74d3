"""Queues: how much waits and how much runs."""

import asyncio

from litestar import get
from litestar.types import ASGIApp

from codefleet.domain.queues import Queue
from codefleet.domain.workers import Worker, WorkerState
from codefleet.queue_figures import QueueFigures, read_queues
from services.api.context import ApiRequest, api_of
from services.api.deadline import in_time
from services.api.documentation import documented
from services.api.replies import success
from services.api.schemas.queues import QueueList, QueueView


@get("/queues", opt=documented(summary="Look at the queues", tag="fleet", answer=QueueList))
async def list_queues(request: ApiRequest) -> ASGIApp:
    stores = api_of(request).stores
    queues, workers = await asyncio.gather(
        in_time(read_queues(stores.tasks, stores.ready)),
        in_time(stores.workers.present()),
    )
    items = [_view(queue, figures, workers) for queue, figures in queues.items()]
    return success(QueueList(items=items, degraded=any(item.waiting is None for item in items)))


def _view(queue: Queue, figures: QueueFigures, workers: list[Worker]) -> QueueView:
    serving = [worker for worker in workers if queue in worker.queues and worker.state is WorkerState.ONLINE]
    return QueueView(
        name=queue,
        waiting=figures.ready,
        running=figures.running,
        workers=len(serving),
        slots=sum(worker.slots for worker in serving),
        oldest_waiting_seconds=figures.oldest_waiting_seconds,
    )


HANDLERS = [list_queues]
