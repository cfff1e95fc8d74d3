"""Grant: ready tasks are matched to free slots, written down, and announced to their workers."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping

import structlog
from redis import RedisError

from codefleet.domain.placement import Load, place, total_free
from codefleet.domain.queues import Queue
from codefleet.domain.states import State
from codefleet.domain.transitions import Transition
from codefleet.messages import Grant, Grants, InboxFilled, TaskChanged
from codefleet.queueing.broker import GrantBroker
from codefleet.queueing.ready_index import ReadyIndex
from codefleet.queueing.streams import StreamWriter, control_stream, events_stream
from codefleet.storage.tasks import Candidate, TaskRepository
from services.scheduler.occupancy import Occupancy

_BATCH = 256

log = structlog.get_logger(__name__)


class GrantDuty:
    def __init__(
        self,
        *,
        tasks: TaskRepository,
        ready: ReadyIndex,
        broker: GrantBroker,
        notices: StreamWriter,
        occupancy: Occupancy,
        redis_prefix: str,
    ) -> None:
        self._tasks = tasks
        self._ready = ready
        self._broker = broker
        self._notices = notices
        self._occupancy = occupancy
        self._prefix = redis_prefix

    async def run(self) -> int:
        """Grants until the slots or the ready tasks run out; tells how many grants were made."""
        granted = 0
        for queues in list(self._occupancy.groups()):
            while loads := self._free_workers(queues):
                count = min(_BATCH, total_free(loads.values()))
                taken = await self._ready.take(queues, count, now_milliseconds=round(time.time() * 1000))
                if not taken:
                    break
                granted += await self._grant(taken, loads)
        return granted

    def _free_workers(self, queues: tuple[Queue, ...]) -> dict[str, Load]:
        loads = self._occupancy.groups().get(queues, {})
        return {worker: load for worker, load in loads.items() if load.free}

    async def _grant(self, taken: list[str], loads: Mapping[str, Load]) -> int:
        candidates = await self._tasks.candidates(taken)
        waiting = [task_id for task_id in taken if task_id in candidates]
        placed = place(waiting, loads)
        made = await asyncio.gather(*(self._write(candidates[task], worker) for task, worker in placed.items()))
        inboxes: dict[str, list[Grant]] = defaultdict(list)
        for (task_id, worker_id), took_effect in zip(placed.items(), made, strict=True):
            if took_effect:
                grant = _grant_of(candidates[task_id])
                self._occupancy.occupy(worker_id, task_id, grant.epoch)
                inboxes[worker_id].append(grant)
        # From here on MongoDB knows: what is not announced runs out and is granted again.
        await self._announce(inboxes)
        await self._ready.forget_taken(taken)
        return sum(made)

    async def _write(self, candidate: Candidate, worker_id: str) -> bool:
        return await self._tasks.apply(
            Transition(
                task_id=candidate.task_id,
                path=(candidate.state, State.RECEIVED),
                epoch=candidate.epoch,
                cause=f"granted to {worker_id}",
                actor="scheduler",
                attempt=candidate.attempt,
                fields={"epoch": candidate.epoch + 1, "worker_id": worker_id, "due_at": None},
                renews_lease=True,
            ),
        )

    async def _announce(self, inboxes: Mapping[str, list[Grant]]) -> None:
        for worker_id, grants in inboxes.items():
            try:
                await asyncio.to_thread(self._broker.send_grants, worker_id, Grants(grants=grants))
            except RedisError as error:
                log.warning("grants not announced", worker_id=worker_id, count=len(grants), error=str(error))
            self._notices.send(control_stream(self._prefix, worker_id), InboxFilled())
            for grant in grants:
                self._notices.send(events_stream(self._prefix), TaskChanged(task_id=grant.task_id))


def _grant_of(candidate: Candidate) -> Grant:
    return Grant(
        task_id=candidate.task_id,
        epoch=candidate.epoch + 1,
        attempt=candidate.attempt,
        type=candidate.type,
    )
