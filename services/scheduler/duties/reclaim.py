"""Reclaim: tasks whose worker has let their lease end go back, or end as poison; silent workers are given up."""

import asyncio

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

    async def run(self) -> int:
        """Reclaims what has ended and tells how many tasks that were."""
        ended = await self._tasks.ended_leases(
            claim_seconds=self._settings.claim_seconds,
            lease_seconds=self._settings.lease_seconds,
            limit=_BATCH,
        )
        reclaimed = sum(await asyncio.gather(*(self._reclaim(task) for task in ended)))
        await self._give_up_workers()
        return reclaimed

    async def _reclaim(self, task: Task) -> bool:
        now = utc_now()
        settlement = settlement_of_loss(task, now)
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
        for worker in await self._workers.give_up_silent(silent_seconds=self._settings.lease_seconds):
            log.warning("worker lost", worker_id=worker.worker_id)
            try:
                await asyncio.to_thread(self._broker.discard_inbox, worker.worker_id)
            except RedisError as error:
                log.warning("inbox not discarded", worker_id=worker.worker_id, error=str(error))
