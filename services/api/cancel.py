"""Asking a task to stop."""

from codefleet.clock import utc_now
from codefleet.domain.identity import Identity
from codefleet.domain.settlement import Settlement, settled_fields
from codefleet.domain.states import State
from codefleet.domain.tasks import Task
from codefleet.domain.transitions import Transition, cancel_target
from codefleet.errors import ConflictError
from codefleet.messages import CancelRequested, SlotFreed, TaskChanged
from codefleet.queueing.streams import control_stream, events_stream, wake_stream
from services.api.access import visible_task
from services.api.context import Api
from services.api.deadline import in_time

_MAX_TRIES = 10


async def cancel(api: Api, identity: Identity, task_id: str, reason: str = "") -> Task:
    """Cancels what waits at once; asks the worker to stop what runs, which is repeated if asked again.

    Raises:
        NotFoundError: there is no such task for this identity.
        IllegalTransitionError: the task has ended.
        ConflictError: the task moved all the time while we tried.
    """
    cause = f"cancelled on request: {reason}" if reason else "cancelled on request"
    for _ in range(_MAX_TRIES):
        task = await visible_task(api.stores.tasks, identity, task_id)
        target = cancel_target(task.state)
        if target is None:
            _tell(api, task, State.CANCELLING)
            return task
        if await in_time(api.stores.tasks.apply(_transition(task, target, cause, identity))):
            _tell(api, task, target)
            return await visible_task(api.stores.tasks, identity, task_id)
    raise ConflictError("The task keeps changing; try again")


def _transition(task: Task, target: State, cause: str, identity: Identity) -> Transition:
    ends = target is State.CANCELLED
    return Transition(
        task_id=task.task_id,
        path=(task.state, target),
        # Under another epoch another worker has the task, and that one would have to be told.
        epoch=task.epoch,
        cause=cause,
        actor=identity.actor,
        attempt=task.attempt,
        fields=settled_fields(task, Settlement(state=target, cause=cause), utc_now()) if ends else {},
    )


def _tell(api: Api, task: Task, target: State) -> None:
    """Sends notices; `task` is as it was before it moved to `target`."""
    prefix, notices = api.settings.redis_prefix, api.stores.notices
    notices.send(events_stream(prefix), TaskChanged(task_id=task.task_id))
    if target is State.CANCELLED:
        api.feed.withdraw(task)
    if task.worker_id is None:
        return
    if target is State.CANCELLED:
        notices.send(wake_stream(prefix), SlotFreed(worker_id=task.worker_id, task_id=task.task_id, epoch=task.epoch))
    else:
        notices.send(control_stream(prefix, task.worker_id), CancelRequested(task_id=task.task_id))
