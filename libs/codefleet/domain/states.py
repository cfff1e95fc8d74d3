"""The states of a task and every move between them, as data.

The table below is the only place that knows which moves are legal. The diagram in ARCHITECTURE.md is made from it by
`python -m codefleet.domain.states`.
"""

from enum import StrEnum

from codefleet.errors import IllegalTransitionError, InvalidFieldError


class State(StrEnum):
    PENDING = "pending"
    RECEIVED = "received"
    STARTED = "started"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING_CONFIRMATION = "waiting_confirmation"
    CANCELLING = "cancelling"
    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


MOVES: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RECEIVED, State.CANCELLED}),
    State.RECEIVED: frozenset({State.STARTED, State.PENDING, State.CANCELLED}),
    State.STARTED: frozenset({State.RUNNING, State.FAILURE, State.CANCELLING, State.CANCELLED, State.RETRY}),
    State.RUNNING: frozenset(
        {
            State.PAUSED,
            State.WAITING_CONFIRMATION,
            State.SUCCESS,
            State.FAILURE,
            State.TIMEOUT,
            State.CANCELLING,
            State.RETRY,
        },
    ),
    State.PAUSED: frozenset({State.RUNNING, State.CANCELLING, State.CANCELLED}),
    State.WAITING_CONFIRMATION: frozenset(
        {State.RUNNING, State.FAILURE, State.CANCELLING, State.TIMEOUT, State.CANCELLED, State.RETRY},
    ),
    State.CANCELLING: frozenset({State.CANCELLED, State.SUCCESS, State.FAILURE}),
    State.RETRY: frozenset({State.RECEIVED, State.FAILURE, State.CANCELLED}),
    State.SUCCESS: frozenset(),
    State.FAILURE: frozenset({State.PENDING}),
    State.CANCELLED: frozenset(),
    State.TIMEOUT: frozenset({State.PENDING}),
}

TERMINAL = frozenset({State.SUCCESS, State.FAILURE, State.CANCELLED, State.TIMEOUT})
WAITING = frozenset({State.PENDING, State.RETRY})
"""States in which a task may be granted to a worker."""
LEASED = frozenset(State) - TERMINAL - WAITING - {State.PAUSED}
"""States in which a worker holds a task under a lease."""

ALIASES: dict[str, State] = {
    "waiting": State.PENDING,
    "queued": State.PENDING,
    "assigned": State.RECEIVED,
    "working": State.RUNNING,
    "in_progress": State.RUNNING,
    "completed": State.SUCCESS,
    "failed": State.FAILURE,
    "revoked": State.CANCELLED,
    "retrying": State.RETRY,
}


def parse_state(word: str, *, field: str = "status") -> State:
    """The state that a canonical name or a seed's alias means.

    Raises:
        InvalidFieldError: for any other word, listing the canonical names.
    """
    key = word.strip().lower()
    if key in ALIASES:
        return ALIASES[key]
    try:
        return State(key)
    except ValueError:
        raise InvalidFieldError(field, f"{word!r} is not a state; expected one of {', '.join(State)}") from None


def may_move(from_: State, to: State) -> bool:
    return to in MOVES[from_]


def check_move(from_: State, to: State) -> None:
    """Raises IllegalTransitionError, naming both states, unless the table has the move."""
    if not may_move(from_, to):
        raise IllegalTransitionError(f"A task cannot move from {from_} to {to}", **{"from": from_, "to": to})


def sources(to: State) -> tuple[State, ...]:
    """The states from which `to` can be reached, in the table's order."""
    return tuple(state for state, targets in MOVES.items() if to in targets)


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.PENDING}"]
    lines += [f"    {state} --> {to}" for state, targets in MOVES.items() for to in State if to in targets]
    lines += [f"    {state} --> [*]" for state in State if state in TERMINAL]
    return "\n".join(lines)


if __name__ == "__main__":
    print(mermaid())  # noqa: T201
