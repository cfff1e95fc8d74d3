"""A change of a task's state as a value: which move, on what condition, with which fields beside it."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import msgspec

from codefleet.domain.states import State, check_move
from codefleet.errors import IllegalTransitionError


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One conditional write that takes a task along `path`.

    It takes effect only while the task is in `path[0]` and, if `epoch` is given, still under that epoch.

    Args:
        id: names this very write, so that repeating it after a lost reply is recognised.
        path: the states passed through, at least two; every step must be in the state table.
        actor: who causes it (`user:…`, `worker:…`, `scheduler`).
        fields: other fields that change with it, as stored names (dots reach into documents).
        appends: values pushed onto lists.
        worker_id: if given, the move is made only while this worker has the task.
        lease_as_of: if given, the move is made only while the lease has not been renewed since.
        renews_lease: the same write starts or renews the lease.
    """

    task_id: str
    path: tuple[State, ...]
    cause: str
    actor: str
    attempt: int
    epoch: int | None = None
    fields: dict[str, Any] = {}
    appends: dict[str, Any] = {}
    worker_id: str | None = None
    lease_as_of: datetime | None = None
    renews_lease: bool = False
    id: str = msgspec.field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        if len(self.path) < 2:  # noqa: PLR2004 - where from and where to
            raise ValueError(f"expected a path of at least two states, got {self.path}")
        for from_, to in self.steps:
            check_move(from_, to)

    @property
    def steps(self) -> list[tuple[State, State]]:
        return list(zip(self.path, self.path[1:], strict=False))


def cancel_target(state: State) -> State | None:
    """Where a request to cancel takes a task: None if it is on its way already.

    A task that a worker may have started passes through `cancelling`, so that `cancelled` means its agent is dead.

    Raises:
        IllegalTransitionError: the task has ended.
    """
    match state:
        case State.CANCELLING:
            return None
        case State.STARTED | State.RUNNING | State.WAITING_CONFIRMATION:
            return State.CANCELLING
        case State.PENDING | State.RECEIVED | State.RETRY | State.PAUSED:
            return State.CANCELLED
        case _:
            raise IllegalTransitionError(
                f"A task that ended in {state} cannot be cancelled",
                **{"from": state, "to": State.CANCELLED},
            )
