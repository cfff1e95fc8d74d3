"""What codefleet needs, looked at from this process."""

import asyncio
import time
from collections.abc import Awaitable
from importlib.metadata import version

from codefleet.domain.workers import WorkerState
from codefleet.errors import UnavailableError
from codefleet.queueing.redis import translated
from codefleet.storage.leadership import LeadershipRepository
from services.api.context import Api
from services.api.schemas.health import Check, Health, Status

_CHECK_SECONDS = 1.0
_OK = Check(status="ok")


async def health_of(api: Api) -> Health:
    """Looks at everything at once; takes about _CHECK_SECONDS at most."""
    mongo, redis, scheduler, (workers, online) = await asyncio.gather(
        _mongo(api),
        _redis(api),
        _scheduler(api),
        _workers(api),
    )
    checks = {"mongo": mongo, "redis": redis, "scheduler": scheduler, "workers": workers}
    return Health(
        status=_overall(checks),
        version=version("codefleet"),
        uptime_seconds=round(time.monotonic() - api.started_at, 3),
        workers_online=online,
        checks=checks,
    )


async def is_ready(api: Api) -> bool:
    """Whether this process can do its work now."""
    return not api.closing.is_set() and (await _mongo(api)).status == "ok"


def _overall(checks: dict[str, Check]) -> Status:
    if checks["mongo"].status == "down":
        return "down"
    return "ok" if all(check.status == "ok" for check in checks.values()) else "degraded"


async def _mongo(api: Api) -> Check:
    return await _answers(
        api.stores.mongo.ping(),
        reason="MongoDB does not answer",
        advice="Check that mongod runs and that CODEFLEET_MONGO_URL reaches it; nothing accepted is lost",
    )


async def _redis(api: Api) -> Check:
    async def ping() -> None:
        with translated():
            await api.stores.redis.ping()

    return await _answers(
        ping(),
        reason="Redis does not answer",
        advice="Check that redis-server runs and that CODEFLEET_REDIS_URL reaches it; tasks are accepted and wait",
    )


async def _answers(probe: Awaitable[None], *, reason: str, advice: str) -> Check:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await probe
    except (UnavailableError, TimeoutError):
        return Check(status="down", reason=reason, advice=advice)
    return _OK


async def _scheduler(api: Api) -> Check:
    leaderships = LeadershipRepository(api.stores.mongo, "scheduler")
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            if await leaderships.is_held():
                return _OK
    except (UnavailableError, TimeoutError):
        return Check(status="degraded", reason="Not known while MongoDB does not answer", advice="See mongo")
    return Check(
        status="degraded",
        reason="No scheduler leads",
        advice="Start a scheduler; tasks are accepted and wait until one leads",
    )


async def _workers(api: Api) -> tuple[Check, int]:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            workers = await api.stores.workers.present()
    except (UnavailableError, TimeoutError):
        return Check(status="degraded", reason="Not known while MongoDB does not answer", advice="See mongo"), 0
    online = sum(worker.state is WorkerState.ONLINE for worker in workers)
    if online:
        return _OK, online
    return Check(status="degraded", reason="No worker is online", advice="Start an executor"), 0
