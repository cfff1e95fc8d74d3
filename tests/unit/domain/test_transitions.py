import pytest

from codefleet.domain.states import TERMINAL, State, may_move
from codefleet.domain.transitions import Transition, cancel_target
from codefleet.errors import IllegalTransitionError


def transition(*path: State) -> Transition:
    return Transition(task_id="t", path=path, cause="c", actor="a", attempt=1)


def test_each_step_of_a_path_is_checked():
    assert transition(State.RECEIVED, State.STARTED, State.RUNNING).steps == [
        (State.RECEIVED, State.STARTED),
        (State.STARTED, State.RUNNING),
    ]
    with pytest.raises(IllegalTransitionError) as refused:
        transition(State.RECEIVED, State.STARTED, State.SUCCESS)
    assert refused.value.details == {"from": State.STARTED, "to": State.SUCCESS}


def test_no_two_transitions_share_a_name():
    assert len({transition(State.PENDING, State.RECEIVED).id for _ in range(1000)}) == 1000


@pytest.mark.parametrize("path", [(), (State.PENDING,)])
def test_a_path_without_a_step_is_refused(path: tuple[State, ...]):
    with pytest.raises(ValueError, match="path"):
        transition(*path)


@pytest.mark.parametrize("state", [State.PENDING, State.RECEIVED, State.RETRY, State.PAUSED])
def test_what_does_not_run_is_cancelled_at_once(state: State):
    assert cancel_target(state) is State.CANCELLED
    assert may_move(state, State.CANCELLED)


@pytest.mark.parametrize("state", [State.STARTED, State.RUNNING, State.WAITING_CONFIRMATION])
def test_what_may_run_passes_through_cancelling(state: State):
    assert cancel_target(state) is State.CANCELLING
    assert may_move(state, State.CANCELLING)


def test_a_second_cancel_has_nothing_to_do():
    assert cancel_target(State.CANCELLING) is None


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_what_has_ended_cannot_be_cancelled(state: State):
    with pytest.raises(IllegalTransitionError) as refused:
        cancel_target(state)
    assert refused.value.details == {"from": state, "to": State.CANCELLED}
    assert state.value in refused.value.message
