"""Claiming: the moment from which a worker, and no other, runs a granted task."""

import asyncio
import time
from uuid import uuid4

import structlog

from codefleet.clock import utc_now
from codefleet.domain.states import State
from codefleet.domain.tasks import Attempt, Task
from codefleet.domain.transitions import Transition
from codefleet.errors import UnavailableError
from codefleet.messages import Grant
from codefleet.storage.tasks import TaskRepository
from codefleet.tasktypes.registry import TASK_TYPES

_RETRY_SECONDS = 0.2

log = structlog.get_logger(__name__)


async def claim(grants: list[Grant], worker_id: str, tasks: TaskRepository, *, until: float) -> list[Task]:
    """The tasks that are now this worker's, as they are after the claim.

    A grant is refused, and nothing changes, unless its task is still received by this worker under the grant's epoch.

    Args:
        until: monotonic seconds; how long a claim whose reply was lost is worth asking about.

    Raises:
        UnavailableError: MongoDB is away; what was granted runs out and is granted again.
    """
    epochs = {grant.task_id: grant.epoch for grant in grants}
    found = await tasks.get_many(list(epochs))
    valid = [task for task in found if task.epoch == epochs[task.task_id] and task.worker_id == worker_id]
    received = [task for task in valid if task.state is State.RECEIVED]
    claiming = (_claim(task, worker_id, tasks, until) for task in received)
    claimed = await asyncio.gather(*claiming, return_exceptions=True)
    for task, answer in zip(received, claimed, strict=True):
        if isinstance(answer, BaseException):
            log.warning("grant not claimed", task_id=task.task_id, reason=str(answer))
    stale = len(grants) - len(received) + claimed.count(None)
    if stale:
        log.info("stale grants refused", count=stale)
    return [task for task in claimed if isinstance(task, Task)]


async def _claim(task: Task, worker_id: str, tasks: TaskRepository, until: float) -> Task | None:
    now = utc_now()
    attempt = Attempt(
        number=task.attempt + 1,
        epoch=task.epoch,
        worker_id=worker_id,
        started_at=now,
        session_id=str(uuid4()),
    )
    # A function has nothing to prepare: it runs from its claim.
    type_ = TASK_TYPES.get(task.type)
    runs_at_once = type_ is not None and type_.function is not None
    path = (State.RECEIVED, State.STARTED, State.RUNNING) if runs_at_once else (State.RECEIVED, State.STARTED)
    transition = Transition(
        task_id=task.task_id,
        path=path,
        epoch=task.epoch,
        cause="claimed by its worker",
        actor=f"worker:{worker_id}",
        attempt=attempt.number,
        fields={
            "attempt": attempt.number,
            "session_id": attempt.session_id,
            "started_at": task.started_at or now,
        },
        appends={"attempts": attempt},
        renews_lease=True,
    )
    if not await _applied(transition, tasks, until):
        return None
    task.state = path[-1]
    task.attempt = attempt.number
    task.session_id = attempt.session_id
    task.attempts.append(attempt)
    return task


async def _applied(transition: Transition, tasks: TaskRepository, until: float) -> bool:
    """Asks again while MongoDB is away: a claim that took effect unheard would leave its task with nobody."""
    while True:
        try:
            return await tasks.apply(transition)
        except UnavailableError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(_RETRY_SECONDS)
