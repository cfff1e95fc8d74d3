"""What becomes of a task when a run of it ends: the state, the error, the time of the next try. Pure decisions."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from codefleet.domain.outcomes import Cancelled, Failed, HandedBack, Outcome, Success, TimedOut
from codefleet.domain.retry import MAX_LOSSES, ErrorClass, backoff_seconds, may_retry
from codefleet.domain.states import TERMINAL, State
from codefleet.domain.tasks import Task, TaskError

_MAX_RETRY_AFTER_SECONDS = 31 * 24 * 3600.0
"""No quota resets later than that; what a service says beyond it is a mistake."""

_MAX_MESSAGE_CHARACTERS = 2_000


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """Where the task goes. `due_at` is set only when it waits to be tried again."""

    state: State
    cause: str
    error: TaskError | None = None
    due_at: datetime | None = None
    counts_as_retry: bool = False
    counts_as_loss: bool = False


def settlement_of(task: Task, outcome: Outcome, now: datetime) -> Settlement:
    """Decides for a run that its own worker saw end."""
    if task.state is State.CANCELLING and not isinstance(outcome, Success):
        return Settlement(state=State.CANCELLED, cause="cancelled on request")
    match outcome:
        case Success():
            return Settlement(state=State.SUCCESS, cause="the run succeeded")
        case Cancelled():
            return Settlement(state=State.CANCELLED, cause="cancelled on request")
        case TimedOut(timeout_seconds=seconds):
            error = TaskError(
                class_=ErrorClass.TIMEOUT,
                code="TASK_TIMEOUT",
                message=f"The run did not end within {seconds:g} s",
                advice="Raise `timeout`, or split the work into smaller tasks",
            )
            return Settlement(state=State.TIMEOUT, cause=error.message, error=error)
        case HandedBack(reason=reason):
            return Settlement(state=State.RETRY, cause=reason, due_at=now)
        case Failed():
            return _failed(task, outcome, now)


def _failed(task: Task, outcome: Failed, now: datetime) -> Settlement:
    message = shortened(outcome.message)
    error = TaskError(class_=outcome.error_class, code=outcome.code, message=message, advice=outcome.advice)
    if not may_retry(outcome.error_class, retry_count=task.retry_count, max_retries=task.max_retries):
        return Settlement(state=State.FAILURE, cause=message, error=error)
    delay = backoff_seconds(task.retry_count, base_seconds=task.retry_delay_seconds)
    delay = max(delay, min(_MAX_RETRY_AFTER_SECONDS, outcome.retry_after_seconds or 0.0))
    return Settlement(
        state=State.RETRY,
        cause=message,
        error=error,
        due_at=now + timedelta(seconds=delay),
        counts_as_retry=True,
    )


def shortened(message: str) -> str:
    """A message as a task document should carry it; the whole text is in the log."""
    return message if len(message) <= _MAX_MESSAGE_CHARACTERS else message[:_MAX_MESSAGE_CHARACTERS] + "…"


def settlement_of_loss(task: Task, now: datetime, *, worker_is_gone: bool) -> Settlement:
    """Decides for a task whose lease ended.

    Such a task is tried again at once and loses no retry. If its worker is gone as well, the task may be the cause:
    after MAX_LOSSES it is taken for it. A worker that is still there was cut off for a while, which says nothing.
    """
    if task.state is State.RECEIVED:
        return Settlement(state=State.PENDING, cause="its worker was lost before it started", due_at=now)
    if task.state is State.CANCELLING:
        return Settlement(state=State.CANCELLED, cause="cancelled on request; its worker was lost")
    error = TaskError(
        class_=ErrorClass.WORKER_LOST,
        code="WORKER_LOST",
        message=f"Worker {task.worker_id} was lost while it ran the task",
    )
    losses = task.loss_count + 1
    if worker_is_gone and losses >= MAX_LOSSES:
        error = TaskError(
            class_=ErrorClass.WORKER_LOST,
            code="POISON_TASK",
            message=f"{losses} workers were lost while they ran this task",
            advice="Look at what the task does to its machine (memory, disk, processes) before you retry it",
        )
        return Settlement(state=State.FAILURE, cause=error.message, error=error, counts_as_loss=True)
    return Settlement(state=State.RETRY, cause=error.message, error=error, due_at=now, counts_as_loss=worker_is_gone)


def settled_fields(task: Task, settlement: Settlement, now: datetime) -> dict[str, Any]:
    """The fields that end a lease, whoever ends it."""
    fields: dict[str, Any] = {
        "worker_id": None,
        "lease_renewed_at": None,
        "due_at": settlement.due_at,
        "error": settlement.error,
    }
    if settlement.counts_as_retry:
        fields["retry_count"] = task.retry_count + 1
    if settlement.counts_as_loss:
        fields["loss_count"] = task.loss_count + 1
    if settlement.state in TERMINAL:
        fields["completed_at"] = now
    if task.attempts and task.attempts[-1].epoch == task.epoch:
        fields |= {
            f"attempts.{len(task.attempts) - 1}.ended_at": now,
            f"attempts.{len(task.attempts) - 1}.outcome": settlement.state,
            f"attempts.{len(task.attempts) - 1}.error": settlement.error,
        }
    return fields
