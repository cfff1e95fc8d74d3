"""Workers: who runs tasks, and how many."""

import asyncio
from collections import Counter

from litestar import get
from litestar.types import ASGIApp

from codefleet.domain.workers import Worker
from services.api.context import ApiRequest, api_of
from services.api.deadline import in_time
from services.api.documentation import documented
from services.api.replies import success
from services.api.schemas.workers import WorkerList, WorkerView
from services.api.security import require_sees_all

_MAX_WORKERS = 500


@get(
    "/workers",
    opt=documented(summary="Look at the workers, latest first", tag="fleet", answer=WorkerList, errors=(403,)),
)
async def list_workers(request: ApiRequest) -> ASGIApp:
    require_sees_all(request.user)
    stores = api_of(request).stores
    workers, leases = await asyncio.gather(
        in_time(stores.workers.recent(_MAX_WORKERS)),
        in_time(stores.tasks.leases()),
    )
    running = Counter(lease.worker_id for lease in leases)
    return success(WorkerList(items=[_view(worker, running[worker.worker_id]) for worker in workers]))


def _view(worker: Worker, running: int) -> WorkerView:
    return WorkerView(
        id=worker.worker_id,
        executor=worker.executor,
        state=worker.state,
        slots=worker.slots,
        running=running,
        hostname=worker.hostname,
        pid=worker.pid,
        started_at=worker.started_at,
        heartbeat_at=worker.heartbeat_at,
    )


HANDLERS = [list_workers]
