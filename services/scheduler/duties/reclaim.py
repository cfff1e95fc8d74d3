"""Reclaim: tasks whose worker has let their lease end go back, or end as poison; silent workers are given up."""

import asyncio
import math
import time

import structlog
from redis import RedisError

from codefleet.clock import utc_now
from codefleet.domain.settlement import settled_fields, settlement_of_loss
from codefleet.domain.tasks import Task
from codefleet.domain.transitions import Transition
from codefleet.messages import TaskChanged
from codefleet.queueing.broker import GrantBroker
from codefleet.queueing.streams import StreamWriter, events_stream
from codefleet.settings import Settings
from codefleet.storage.tasks import TaskRepository
from codefleet.storage.workers import WorkerRepository

_BATCH = 500
_GRACE_HEARTBEATS = 1.5

log = structlog.get_logger(__name__)


class ReclaimDuty:
    def __init__(
        self,
        tasks: TaskRepository,
        workers: WorkerRepository,
        broker: GrantBroker,
        notices: StreamWriter,
        settings: Settings,
    ) -> None:
        self._tasks = tasks
        self._workers = workers
        self._broker = broker
        self._notices = notices
        self._settings = settings
        self._last_run = -math.inf
        self._grace_until = 0.0

    async def run(self) -> int:
        """Reclaims what has ended and tells how many tasks that were."""
        if self._is_in_grace():
            return 0
        await self._give_up_workers()
        present = {worker.worker_id for worker in await self._workers.present()}
        ended = await self._tasks.ended_leases(
            claim_seconds=self._settings.claim_seconds,
            lease_seconds=self._settings.lease_seconds,
            limit=_BATCH,
        )
        self._last_run = time.monotonic()
        return sum(await asyncio.gather(*(self._reclaim(task, task.worker_id not in present) for task in ended)))

    def _is_in_grace(self) -> bool:
        """After a time without looking, such as an outage of MongoDB, workers first get the chance to renew."""
        now = time.monotonic()
        if now - self._last_run > self._settings.heartbeat_seconds:
            self._last_run, self._grace_until = now, now + _GRACE_HEARTBEATS * self._settings.heartbeat_seconds
        if now < self._grace_until:
            self._last_run = now
            return True
        return False

    async def _reclaim(self, task: Task, worker_is_gone: bool) -> bool:  # noqa: FBT001 - it is the point
        now = utc_now()
        settlement = settlement_of_loss(task, now, worker_is_gone=worker_is_gone)
        took_effect = await self._tasks.apply(
            Transition(
                task_id=task.task_id,
                path=(task.state, settlement.state),
                epoch=task.epoch,
                lease_as_of=task.lease_renewed_at,
                cause=settlement.cause,
                actor="scheduler",
                attempt=task.attempt,
                fields=settled_fields(task, settlement, now),
            ),
        )
        if took_effect:
            log.warning("task reclaimed", task_id=task.task_id, worker_id=task.worker_id, state=settlement.state)
            self._notices.send(events_stream(self._settings.redis_prefix), TaskChanged(task_id=task.task_id))
        return took_effect

    async def _give_up_workers(self) -> None:
        # A little sooner than its leases end, so that it is known to be gone when they do.
        silent_seconds = self._settings.lease_seconds - self._settings.heartbeat_seconds / 2
        for worker in await self._workers.give_up_silent(silent_seconds=silent_seconds):
            log.warning("worker lost", worker_id=worker.worker_id)
            try:
                await asyncio.to_thread(self._broker.discard_inbox, worker.worker_id)
            except RedisError as error:
                log.warning("inbox not discarded", worker_id=worker.worker_id, error=str(error))
