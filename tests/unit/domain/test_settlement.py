from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codefleet.domain.outcomes import Cancelled, Failed, HandedBack, Outcome, Success, TimedOut, Usage
from codefleet.domain.retry import RETRIABLE, ErrorClass
from codefleet.domain.settlement import settled_fields, settlement_of, settlement_of_loss
from codefleet.domain.states import LEASED, TERMINAL, State
from codefleet.domain.tasks import Attempt, Task
from codefleet.execution.settle import RunFacts, _decide
from tests.support.tasks import make_task

NOW = datetime(2026, 11, 5, 12, tzinfo=UTC)
FACTS = RunFacts(usage=Usage(), log_from=None, log_to=None)
RUN_BY_A_WORKER = sorted(LEASED - {State.RECEIVED})

failures = st.builds(
    Failed,
    error_class=st.sampled_from(ErrorClass),
    code=st.just("CODE"),
    message=st.text(max_size=20),
    retry_after_seconds=st.none() | st.floats(allow_nan=True, allow_infinity=True),
)
outcomes = st.one_of(
    st.builds(Success, result=st.none() | st.integers() | st.text()),
    failures,
    st.just(Cancelled()),
    st.builds(TimedOut, timeout_seconds=st.floats(0, 1e9)),
    st.just(HandedBack(reason="worker w is shutting down")),
)


def task_in(state: State, **fields) -> Task:
    values = {
        "worker_id": "w",
        "epoch": 4,
        "attempt": 1,
        "attempts": [Attempt(number=1, epoch=4, worker_id="w", started_at=NOW)],
    }
    return make_task(state=state, **(values | fields))


@given(
    st.sampled_from(RUN_BY_A_WORKER),
    outcomes,
    st.integers(0, 5),
    st.integers(0, 5),
    st.floats(0, 1e6),
)
def test_every_way_a_run_can_end_is_a_legal_way_through_the_table(
    state: State,
    outcome: Outcome,
    retry_count: int,
    max_retries: int,
    retry_delay_seconds: float,
):
    task = task_in(
        state,
        retry_count=retry_count,
        max_retries=max_retries,
        retry_delay_seconds=retry_delay_seconds,
    )
    # The transition checks each of its steps against the table.
    settlement, transition = _decide(task, outcome, FACTS, "w")
    assert transition.path[0] is state
    assert transition.path[-1] is settlement.state
    assert settlement.state in TERMINAL | {State.RETRY}
    assert (settlement.due_at is not None) == (settlement.state is State.RETRY)
    assert settlement.due_at is None or settlement.due_at >= NOW
    assert transition.epoch == task.epoch


@pytest.mark.parametrize("state", RUN_BY_A_WORKER)
@pytest.mark.parametrize(
    "outcome",
    [
        Success(),
        Cancelled(),
        TimedOut(timeout_seconds=1),
        HandedBack(reason="x"),
        *(Failed(error_class=class_, code="C", message="m") for class_ in ErrorClass),
    ],
    ids=lambda outcome: getattr(outcome, "error_class", type(outcome).__name__),
)
def test_no_combination_of_state_and_outcome_is_illegal(state: State, outcome: Outcome):
    settlement, transition = _decide(task_in(state), outcome, FACTS, "w")
    assert (transition.path[0], transition.path[-1]) == (state, settlement.state)


@pytest.mark.parametrize("outcome", [Cancelled(), TimedOut(timeout_seconds=1), HandedBack(reason="x")])
def test_a_run_being_cancelled_is_cancelled_whatever_ended_it(outcome: Outcome):
    assert settlement_of(task_in(State.CANCELLING), outcome, NOW).state is State.CANCELLED


@given(failures)
def test_a_failure_while_being_cancelled_counts_as_the_cancel(outcome: Failed):
    settlement = settlement_of(task_in(State.CANCELLING), outcome, NOW)
    assert settlement.state is State.CANCELLED
    assert not settlement.counts_as_retry


def test_success_wins_over_a_cancel_that_came_too_late():
    assert settlement_of(task_in(State.CANCELLING), Success(), NOW).state is State.SUCCESS


def test_a_timeout_is_final_and_says_how_long_it_was():
    settlement = settlement_of(task_in(State.RUNNING), TimedOut(timeout_seconds=90), NOW)
    assert settlement.state is State.TIMEOUT
    assert settlement.error is not None
    assert settlement.error.class_ == "timeout"
    assert "90 s" in settlement.error.message


def test_a_task_handed_back_is_due_at_once_and_loses_no_retry():
    settlement = settlement_of(task_in(State.RUNNING), HandedBack(reason="bye"), NOW)
    assert settlement.state is State.RETRY
    assert settlement.due_at == NOW
    assert not settlement.counts_as_retry
    assert not settlement.counts_as_loss


@given(failures, st.integers(0, 4), st.integers(0, 4))
def test_a_failure_is_retried_if_its_class_and_the_limit_allow(outcome: Failed, count: int, limit: int):
    settlement = settlement_of(task_in(State.RUNNING, retry_count=count, max_retries=limit), outcome, NOW)
    retried = outcome.error_class in RETRIABLE and count < limit
    assert settlement.state is (State.RETRY if retried else State.FAILURE)
    assert settlement.counts_as_retry is retried
    assert settlement.error is not None
    assert settlement.error.class_ == outcome.error_class


def test_the_service_that_refused_may_ask_for_a_longer_pause_but_not_a_shorter_one():
    def due(retry_after_seconds: float) -> datetime:
        outcome = Failed(
            error_class=ErrorClass.RATE_LIMIT,
            code="C",
            message="m",
            retry_after_seconds=retry_after_seconds,
        )
        settlement = settlement_of(task_in(State.RUNNING, retry_delay_seconds=100), outcome, NOW)
        assert settlement.due_at is not None
        return settlement.due_at

    assert due(3600) == NOW + timedelta(hours=1)
    assert NOW + timedelta(seconds=80) <= due(1) <= NOW + timedelta(seconds=100)


@pytest.mark.parametrize(
    ("state", "expected", "counts"),
    [
        (State.RECEIVED, State.PENDING, False),
        (State.STARTED, State.RETRY, True),
        (State.RUNNING, State.RETRY, True),
        (State.WAITING_CONFIRMATION, State.RETRY, True),
        (State.CANCELLING, State.CANCELLED, False),
    ],
)
def test_a_lost_worker_frees_its_task(state: State, expected: State, counts: bool):  # noqa: FBT001
    settlement = settlement_of_loss(task_in(state), NOW, worker_is_gone=True)
    assert settlement.state is expected
    assert settlement.counts_as_loss is counts
    assert not settlement.counts_as_retry
    assert settlement.due_at == (None if expected is State.CANCELLED else NOW)


@given(st.sampled_from(sorted(LEASED)), st.integers(0, 10))
def test_every_loss_is_a_legal_move(state: State, losses: int):
    from codefleet.domain.transitions import Transition

    task = task_in(state, loss_count=losses)
    settlement = settlement_of_loss(task, NOW, worker_is_gone=True)
    Transition(task_id="t", path=(state, settlement.state), cause="c", actor="scheduler", attempt=1)


@pytest.mark.parametrize("state", [State.STARTED, State.RUNNING, State.WAITING_CONFIRMATION])
def test_the_third_loss_is_taken_for_poison(state: State):
    assert settlement_of_loss(task_in(state, loss_count=1), NOW, worker_is_gone=True).state is State.RETRY
    settlement = settlement_of_loss(task_in(state, loss_count=2), NOW, worker_is_gone=True)
    assert settlement.state is State.FAILURE
    assert settlement.error is not None
    assert (settlement.error.code, settlement.error.class_) == ("POISON_TASK", "worker_lost")
    assert settlement.counts_as_loss


def test_a_task_that_never_started_cannot_be_poison():
    assert settlement_of_loss(task_in(State.RECEIVED, loss_count=50), NOW, worker_is_gone=True).state is State.PENDING


@given(st.sampled_from(RUN_BY_A_WORKER), outcomes)
def test_settling_always_ends_the_lease_and_the_attempt(state: State, outcome: Outcome):
    task = task_in(state, retry_count=1, loss_count=1)
    settlement = settlement_of(task, outcome, NOW)
    fields = settled_fields(task, settlement, NOW)
    assert fields["worker_id"] is None
    assert fields["lease_renewed_at"] is None
    assert fields["due_at"] == settlement.due_at
    assert fields["attempts.0.ended_at"] == NOW
    assert fields["attempts.0.outcome"] is settlement.state
    assert ("completed_at" in fields) == (settlement.state in TERMINAL)
    assert fields.get("retry_count", 1) == 1 + settlement.counts_as_retry
    assert fields.get("loss_count", 1) == 1 + settlement.counts_as_loss


def test_an_attempt_of_an_earlier_epoch_is_left_as_it_is():
    task = task_in(State.RECEIVED, epoch=9)
    fields = settled_fields(task, settlement_of_loss(task, NOW, worker_is_gone=True), NOW)
    assert not any(key.startswith("attempts") for key in fields)


def test_a_worker_that_is_still_there_makes_no_task_poison():
    settlement = settlement_of_loss(task_in(State.RUNNING, loss_count=50), NOW, worker_is_gone=False)
    assert settlement.state is State.RETRY
    assert not settlement.counts_as_loss
