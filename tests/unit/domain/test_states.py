"""The state table, written out a second time from the requirements (S1, S2)."""

import itertools

import pytest

from codefleet.domain.states import (
    ALIASES,
    LEASED,
    MOVES,
    TERMINAL,
    WAITING,
    State,
    check_move,
    may_move,
    mermaid,
    parse_state,
    sources,
)
from codefleet.errors import IllegalTransitionError, InvalidFieldError

REQUIRED = """
pending: received cancelled
received: started pending cancelled
started: running failure cancelling cancelled retry
running: paused waiting_confirmation success failure timeout cancelling retry
paused: running cancelling cancelled
waiting_confirmation: running failure cancelling timeout cancelled retry
cancelling: cancelled success failure
retry: received failure cancelled
failure: pending
timeout: pending
success:
cancelled:
"""
TABLE = {
    from_: set(targets.split()) for from_, _, targets in (line.partition(":") for line in REQUIRED.split("\n")[1:-1])
}


def test_the_table_has_exactly_the_required_moves():
    assert {str(from_): {str(to) for to in targets} for from_, targets in MOVES.items()} == TABLE


@pytest.mark.parametrize(("from_", "to"), list(itertools.product(State, State)))
def test_a_move_is_allowed_or_refused_naming_both_states(from_: State, to: State):
    allowed = to.value in TABLE[from_.value]
    assert may_move(from_, to) is allowed
    assert (from_ in sources(to)) is allowed
    if allowed:
        check_move(from_, to)
        return
    with pytest.raises(IllegalTransitionError) as refused:
        check_move(from_, to)
    assert refused.value.status == 409
    assert refused.value.details == {"from": from_, "to": to}
    assert from_.value in refused.value.message
    assert to.value in refused.value.message


def test_terminal_waiting_and_leased_states_do_not_overlap():
    assert {state.value for state in TERMINAL} == {"success", "failure", "cancelled", "timeout"}
    assert {state.value for state in WAITING} == {"pending", "retry"}
    assert not TERMINAL & WAITING
    assert frozenset(State) == TERMINAL | WAITING | LEASED | {State.PAUSED}
    assert not LEASED & (TERMINAL | WAITING)


def test_a_grant_is_possible_from_every_waiting_state_and_no_other():
    assert frozenset(sources(State.RECEIVED)) == WAITING


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("waiting", "pending"),
        ("queued", "pending"),
        ("assigned", "received"),
        ("working", "running"),
        ("in_progress", "running"),
        ("completed", "success"),
        ("failed", "failure"),
        ("revoked", "cancelled"),
        ("retrying", "retry"),
    ],
)
def test_every_alias_of_the_seeds_is_understood(word: str, state: str):
    assert parse_state(word) == state
    assert parse_state(f" {word.upper()} ") == state


def test_no_alias_hides_a_canonical_name():
    assert not set(ALIASES) & {state.value for state in State}
    for state in State:
        assert parse_state(state.value) is state


@pytest.mark.parametrize("word", ["", "done", "Pending!", "success failure", "\0"])
def test_an_unknown_word_is_refused_with_the_canonical_names(word: str):
    with pytest.raises(InvalidFieldError) as refused:
        parse_state(word, field="state")
    assert refused.value.details["field"] == "state"
    assert all(state.value in refused.value.message for state in State)


def test_the_diagram_shows_every_move():
    lines = {line.strip() for line in mermaid().splitlines()}
    for from_, targets in TABLE.items():
        assert {f"{from_} --> {to}" for to in targets} <= lines
    assert sum(" --> " in line for line in lines) == sum(map(len, TABLE.values())) + 1 + len(TERMINAL)
