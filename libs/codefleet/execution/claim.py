"""Claiming: the moment from which a worker, and no other, runs a granted task."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

import msgspec
import structlog

from codefleet.clock import utc_now
from codefleet.domain.states import State
from codefleet.domain.tasks import Attempt, Task
from codefleet.domain.transitions import Transition
from codefleet.errors import UnavailableError
from codefleet.messages import Grant
from codefleet.storage.tasks import TaskRepository
from codefleet.tasktypes.registry import TASK_TYPES

Answer = TypeVar("Answer")

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
    # Read and written at the same time: whoever's claim took effect owns what was read, whichever came first.
    found, claims = await asyncio.gather(
        _insistently(lambda: tasks.get_many([grant.task_id for grant in grants]), until),
        asyncio.gather(*(_claim(grant, worker_id, tasks, until) for grant in grants), return_exceptions=True),
    )
    by_id = {task.task_id: task for task in found}
    claimed = []
    for grant, claim_ in zip(grants, claims, strict=True):
        if isinstance(claim_, BaseException):
            log.warning("grant not claimed", task_id=grant.task_id, reason=str(claim_))
        elif claim_ is None:
            log.info("stale grant refused", task_id=grant.task_id, epoch=grant.epoch)
        elif (task := by_id.get(grant.task_id)) is not None:
            claimed.append(claim_.applied_to(task))
    return claimed


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that took effect."""

    state: State
    epoch: int
    attempt: Attempt

    def applied_to(self, task: Task) -> Task:
        """The task as the claim left it, however it was when it was read."""
        task.state = self.state
        task.epoch = self.epoch
        task.attempt = self.attempt.number
        task.session_id = self.attempt.session_id
        task.attempts = [*(earlier for earlier in task.attempts if earlier.epoch != self.epoch), self.attempt]
        return task


async def _claim(grant: Grant, worker_id: str, tasks: TaskRepository, until: float) -> _Claim | None:
    now = utc_now()
    attempt = Attempt(
        number=grant.attempt + 1,
        epoch=grant.epoch,
        worker_id=worker_id,
        started_at=now,
        session_id=str(uuid4()),
    )
    # A function has nothing to prepare: it runs from its claim.
    type_ = TASK_TYPES.get(grant.type)
    runs_at_once = type_ is not None and type_.function is not None
    path = (State.RECEIVED, State.STARTED, State.RUNNING) if runs_at_once else (State.RECEIVED, State.STARTED)
    first = {"started_at": now} if attempt.number == 1 else {}
    transition = Transition(
        task_id=grant.task_id,
        path=path,
        epoch=grant.epoch,
        worker_id=worker_id,
        cause="claimed by its worker",
        actor=f"worker:{worker_id}",
        attempt=attempt.number,
        fields={"attempt": attempt.number, "session_id": attempt.session_id, **first},
        appends={"attempts": attempt},
        renews_lease=True,
    )
    if not await _insistently(lambda: tasks.apply(transition), until):
        return None
    return _Claim(state=path[-1], epoch=grant.epoch, attempt=attempt)


async def _insistently(call: Callable[[], Awaitable[Answer]], until: float) -> Answer:
    """Asks again while MongoDB is away: a claim that took effect unheard would leave its task with nobody."""
    while True:
        try:
            return await call()
        except UnavailableError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(_RETRY_SECONDS)
