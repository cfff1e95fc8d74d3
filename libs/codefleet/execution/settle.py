"""Settling: the last write of a run. What it says is final; nothing after it is needed for correctness."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from codefleet.clock import utc_now
from codefleet.domain.outcomes import Outcome, Success, Usage
from codefleet.domain.settlement import Settlement, settled_fields, settlement_of
from codefleet.domain.states import LEASED, TERMINAL, State, may_move
from codefleet.domain.tasks import Task, TaskProgress
from codefleet.domain.transitions import Transition
from codefleet.errors import UnavailableError
from codefleet.storage.tasks import TaskRepository

_MAX_RESULT_BYTES = 256 * 1024
_RETRY_SECONDS = 0.2

log = structlog.get_logger(__name__)


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the run leaves behind beside its outcome. Log lines are numbers in the task's log."""

    usage: Usage
    log_from: int | None
    log_to: int | None


async def settle(
    task: Task,
    outcome: Outcome,
    facts: RunFacts,
    *,
    worker_id: str,
    tasks: TaskRepository,
    is_lost: Callable[[], bool],
) -> Settlement | None:
    """Writes the outcome of a run; None if the task is not this run's any more and nothing was written.

    Goes on trying while MongoDB is away, until `is_lost` says that the lease is over.
    """
    settlement, transition = _decide(task, outcome, facts, worker_id)
    while not is_lost():
        try:
            if await tasks.apply(transition):
                return settlement
            fresh = await tasks.get(task.task_id)
        except UnavailableError:
            # The very same write again: if it took effect and only its reply was lost, that is recognised.
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        if fresh is None or fresh.epoch != task.epoch or fresh.state not in LEASED:
            break
        # Somebody moved the task meanwhile, most likely by asking to cancel it: decide again.
        task.state = fresh.state
        settlement, transition = _decide(task, outcome, facts, worker_id)
    log.warning("stale settle refused", task_id=task.task_id, epoch=task.epoch)
    return None


def _decide(task: Task, outcome: Outcome, facts: RunFacts, worker_id: str) -> tuple[Settlement, Transition]:
    settlement = settlement_of(task, outcome, utc_now())
    return settlement, Transition(
        task_id=task.task_id,
        path=_path(task.state, settlement.state),
        epoch=task.epoch,
        cause=settlement.cause,
        actor=f"worker:{worker_id}",
        attempt=task.attempt,
        fields=settled_fields(task, settlement, utc_now()) | _attempt_fields(task, outcome, settlement, facts),
    )


def _path(from_: State, to: State) -> tuple[State, ...]:
    """The moves from one state to another, through the one between them if the table has no direct move."""
    if may_move(from_, to):
        return (from_, to)
    return (from_, State.CANCELLING if to is State.CANCELLED else State.RUNNING, to)


def _attempt_fields(task: Task, outcome: Outcome, settlement: Settlement, facts: RunFacts) -> dict[str, Any]:
    at = f"attempts.{len(task.attempts) - 1}"
    fields: dict[str, Any] = {
        f"{at}.exit_code": getattr(outcome, "exit_code", None),
        f"{at}.usage": facts.usage,
        f"{at}.log_from": facts.log_from,
        f"{at}.log_to": facts.log_to,
        "usage": task.usage + facts.usage,
    }
    result = getattr(outcome, "result", None)
    if result is not None and settlement.state in TERMINAL:
        fields["result"] = bounded(result)
    if isinstance(outcome, Success) and settlement.state is State.SUCCESS:
        fields["progress"] = TaskProgress(percentage=100.0, current_step="done")
    return fields


def bounded(result: Any) -> Any:
    """The result, or, if its JSON is larger than a task document should carry, its beginning with a mark."""
    encoded = msgspec.json.encode(result)
    if len(encoded) <= _MAX_RESULT_BYTES:
        return result
    beginning = result if isinstance(result, str) else encoded.decode()
    return {
        "truncated": True,
        "total_bytes": len(encoded),
        "beginning": beginning.encode()[: _MAX_RESULT_BYTES // 2].decode(errors="ignore"),
    }
