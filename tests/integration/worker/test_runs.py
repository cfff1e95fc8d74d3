"""A run from its grant to its settle, and everything that can come between."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from codefleet.clock import utc_now
from codefleet.domain.outcomes import Failed, Success, Usage
from codefleet.domain.queues import Executor
from codefleet.domain.retry import ErrorClass
from codefleet.domain.states import State
from codefleet.domain.workers import WorkerState
from codefleet.execution.drivers import Progress, Session, UsageReport
from codefleet.execution.settle import RunFacts, settle
from codefleet.messages import CancelRequested, Grant, Grants, InboxFilled
from codefleet.queueing.broker import GrantBroker
from codefleet.queueing.streams import control_stream
from tests.integration.worker.conftest import Workshop
from tests.support.waiting import eventually

FACTS = RunFacts(usage=Usage(), log_from=None, log_to=None)


async def test_a_run_leaves_its_result_usage_log_and_session(workshop: Workshop):
    task, run = await workshop.running()
    run.emit(Session(session_id="chosen by the agent"), Progress(percentage=40, current_step="thinking"))
    run.emit(UsageReport(usage=Usage(input_tokens=5)), UsageReport(usage=Usage(input_tokens=7, cost_usd=0.5)))
    for number in range(3):
        run.say(f"line {number}")
    run.end()
    settled = await workshop.reaches(task, State.SUCCESS)
    assert settled.result == "done"
    assert settled.session_id == "chosen by the agent"
    assert settled.usage == Usage(input_tokens=7, cost_usd=0.5)
    assert settled.progress.percentage == 100
    (attempt,) = settled.attempts
    assert (attempt.outcome, attempt.exit_code, attempt.usage.input_tokens) == ("success", 0, 7)
    lines = await workshop.truth.logs.read(task.task_id)
    assert [entry.text for entry in lines] == ["line 0", "line 1", "line 2"]
    assert (attempt.log_from, attempt.log_to) == (lines[0].line, lines[-1].line)
    assert settled.worker_id is None
    assert settled.lease_renewed_at is None
    await workshop.idle()
    assert not run.context.scratch_directory.exists()


async def test_a_run_is_told_how_long_its_lease_lasts_again_and_again(workshop: Workshop):
    task, run = await workshop.running()
    await workshop.until(lambda: len(run.leases) >= 4)
    assert all(0 < seconds <= workshop.settings.lease_seconds - 1 for seconds in run.leases)
    run.end()
    await workshop.reaches(task, State.SUCCESS)


# Claiming


@pytest.mark.parametrize("which", ["earlier epoch", "later epoch", "another worker", "unknown task"])
async def test_a_grant_that_does_not_hold_is_refused(workshop: Workshop, which: str):
    task, grant = await workshop.granted(worker_id="another" if which == "another worker" else None)
    before = await workshop.task(task)
    await workshop.accept(
        {
            "earlier epoch": Grant(task_id=task.task_id, epoch=0, attempt=0, type="agent"),
            "later epoch": Grant(task_id=task.task_id, epoch=2, attempt=0, type="agent"),
            "another worker": grant,
            "unknown task": Grant(task_id="unknown", epoch=1, attempt=0, type="agent"),
        }[which],
    )
    await workshop.idle()
    assert workshop.agent.runs == []
    assert await workshop.task(task) == before


async def test_a_grant_delivered_many_times_is_run_once(workshop: Workshop):
    task, grant = await workshop.granted()
    await asyncio.gather(*(workshop.accept(grant) for _ in range(5)), workshop.accept(grant, grant))
    await workshop.reaches(task, State.RUNNING)
    await workshop.accept(grant)
    assert len(workshop.agent.runs) == 1
    workshop.agent.runs[0].end()
    settled = await workshop.reaches(task, State.SUCCESS)
    await workshop.accept(grant)
    await workshop.idle()
    assert len(workshop.agent.runs) == 1
    assert len(settled.attempts) == 1


async def test_one_stale_grant_does_not_hold_up_the_others_of_its_message(workshop: Workshop):
    task, grant = await workshop.granted()
    await workshop.accept(Grant(task_id="unknown", epoch=1, attempt=0, type="agent"), grant)
    await workshop.reaches(task, State.RUNNING)
    workshop.agent.runs[0].end()
    await workshop.reaches(task, State.SUCCESS)


async def test_a_task_cancelled_between_grant_and_claim_does_not_start(workshop: Workshop):
    task, grant = await workshop.granted()
    await workshop.move(task, State.RECEIVED, State.CANCELLED, worker_id=None, lease_renewed_at=None)
    await workshop.accept(grant)
    await workshop.idle()
    assert workshop.agent.runs == []
    assert (await workshop.task(task)).state is State.CANCELLED


async def test_a_grant_that_cannot_be_claimed_now_can_be_claimed_later(workshop: Workshop):
    task, grant = await workshop.granted()
    workshop.go_away()
    await workshop.accept(grant)
    workshop.go_away(away=False)
    assert (await workshop.task(task)).state is State.RECEIVED
    await workshop.accept(grant)
    await workshop.reaches(task, State.RUNNING)
    workshop.agent.runs[0].end()
    await workshop.reaches(task, State.SUCCESS)


async def test_grants_come_through_the_inbox(workshop_with_inbox: Workshop):
    workshop = workshop_with_inbox
    broker = GrantBroker(workshop.settings.redis_url, workshop.settings.redis_prefix)
    task, grant = await workshop.granted()
    await asyncio.to_thread(broker.send_grants, workshop.worker_id, Grants(grants=[grant]))
    stream = control_stream(workshop.settings.redis_prefix, workshop.worker_id)
    workshop.truth.notices.send(stream, InboxFilled())
    await workshop.reaches(task, State.RUNNING)
    workshop.agent.runs[0].end()
    await workshop.reaches(task, State.SUCCESS)
    broker.close()


# Cancelling


async def test_a_running_task_is_cancelled_when_its_worker_is_told(workshop: Workshop):
    task, run = await workshop.running()
    await workshop.move(task, State.RUNNING, State.CANCELLING)
    stream = control_stream(workshop.settings.redis_prefix, workshop.worker_id)
    asked_at = time.monotonic()
    workshop.truth.notices.send(stream, CancelRequested(task_id=task.task_id))
    settled = await workshop.reaches(task, State.CANCELLED, seconds=2.5)
    assert time.monotonic() - asked_at < 2.5
    assert run.stopped
    assert [move.to for move in settled.history][-2:] == [State.CANCELLING, State.CANCELLED]
    assert settled.attempts[0].outcome == "cancelled"
    assert settled.completed_at is not None


async def test_a_cancel_whose_notice_was_lost_is_seen_with_the_next_heartbeat(workshop: Workshop):
    task, run = await workshop.running()
    await workshop.move(task, State.RUNNING, State.CANCELLING)
    await workshop.reaches(task, State.CANCELLED, seconds=2.5)
    assert run.stopped


async def test_a_cancel_while_the_agent_starts_is_not_overlooked(workshop: Workshop):
    started, go_on = asyncio.Event(), asyncio.Event()
    start = workshop.agent.start

    async def slow_start(context: Any) -> Any:
        started.set()
        await go_on.wait()
        return await start(context)

    workshop.agent.start = slow_start  # type: ignore[method-assign]
    task, grant = await workshop.granted()
    await workshop.accept(grant)
    await asyncio.wait_for(started.wait(), 5)
    await workshop.move(task, State.STARTED, State.CANCELLING)
    go_on.set()
    settled = await workshop.reaches(task, State.CANCELLED, seconds=2.5)
    assert workshop.agent.runs[0].stopped
    assert [move.to for move in settled.history][-2:] == [State.CANCELLING, State.CANCELLED]


async def test_a_success_that_came_before_the_cancel_was_heard_stands(workshop: Workshop):
    task, run = await workshop.running()
    workshop.tasks.away = True  # so that the cancel is written before the settle
    run.end()
    await workshop.move(task, State.RUNNING, State.CANCELLING)
    workshop.tasks.away = False
    assert (await workshop.reaches(task, State.SUCCESS)).result == "done"


async def test_a_cancel_of_a_task_that_is_not_here_is_nothing(workshop: Workshop):
    task, run = await workshop.running()
    stream = control_stream(workshop.settings.redis_prefix, workshop.worker_id)
    workshop.truth.notices.send(stream, CancelRequested(task_id="unknown"))
    workshop.truth.notices.send(stream, CancelRequested(task_id=""))
    run.end()
    await workshop.reaches(task, State.SUCCESS)


# Losing the lease


async def test_a_run_whose_task_was_given_away_stops_and_writes_nothing(workshop: Workshop):
    task, run = await workshop.running()
    run.say("before")

    async def lines() -> list[str]:
        return await workshop.lines(task)

    await eventually(lines)
    await workshop.move(task, State.RUNNING, State.RETRY, worker_id=None, lease_renewed_at=None)
    await workshop.grant(task, "another worker")
    given_away = await workshop.task(task)
    await workshop.until(lambda: run.stopped)
    run.say("after")
    run.end()
    await workshop.idle()
    assert await workshop.task(task) == given_away
    assert await lines() == ["before"]
    assert run.stops[0] == 0.0  # at once, without grace


async def test_a_run_that_ends_just_as_it_was_given_away_does_not_write_over_the_new_one(workshop: Workshop):
    task, run = await workshop.running()
    await workshop.move(task, State.RUNNING, State.RETRY, worker_id=None, lease_renewed_at=None)
    await workshop.grant(task, "another worker")
    given_away = await workshop.task(task)
    run.emit(Progress(percentage=99), Session(session_id="stale"), UsageReport(usage=Usage(input_tokens=1)))
    run.end()
    await workshop.idle()
    assert await workshop.task(task) == given_away


async def test_a_task_granted_again_to_the_same_worker_is_run_by_the_new_run_only(workshop: Workshop):
    task, old = await workshop.running()
    await workshop.move(task, State.RUNNING, State.RETRY, worker_id=None, lease_renewed_at=None)
    await workshop.accept(await workshop.grant(task))
    await workshop.until(lambda: len(workshop.agent.runs) == 2)
    new = workshop.agent.runs[1]
    await workshop.until(lambda: old.stopped, seconds=3)
    assert not new.stopped
    await workshop.reaches(task, State.RUNNING)
    new.end(Success(result="of the new run"))
    assert (await workshop.reaches(task, State.SUCCESS)).result == "of the new run"


async def test_a_worker_cut_off_from_mongodb_stops_its_runs_before_their_leases_end(workshop: Workshop):
    task, run = await workshop.running()
    workshop.go_away()
    cut_off_at = time.monotonic()
    await workshop.until(lambda: run.stopped, seconds=4)
    assert time.monotonic() - cut_off_at < workshop.settings.lease_seconds
    await workshop.idle()
    workshop.go_away(away=False)
    assert (await workshop.task(task)).state is State.RUNNING  # for the scheduler to reclaim


async def test_a_short_absence_of_mongodb_harms_nothing(workshop: Workshop):
    task, run = await workshop.running()
    workshop.go_away()
    run.say("while it was away")
    run.emit(Progress(percentage=10), Session(session_id="s"))
    run.end()
    await workshop.until(lambda: workshop.logs.refused > 1 and workshop.tasks.refused, seconds=2)
    assert workshop.worker._runs
    workshop.go_away(away=False)
    assert (await workshop.reaches(task, State.SUCCESS)).result == "done"
    assert await workshop.lines(task) == ["while it was away"]


# Settling


async def test_a_settle_whose_reply_was_lost_is_settled_once_and_known_to_be(workshop: Workshop):
    task, run = await workshop.running()
    now = await workshop.task(task)
    workshop.tasks.lose_replies = 2
    settlement = await settle(
        now,
        Success(result="once"),
        FACTS,
        worker_id=workshop.worker_id,
        tasks=workshop.tasks,  # type: ignore[arg-type]
        is_lost=lambda: False,
    )
    assert settlement is not None
    assert settlement.state is State.SUCCESS
    settled = await workshop.task(task)
    assert settled.result == "once"
    assert [move.to for move in settled.history].count(State.SUCCESS) == 1
    run.end()
    await workshop.idle()


@pytest.mark.parametrize(
    "result",
    [{"n": 2**70}, "lone \ud800 surrogate", {"a\0b": 1}, object()],
    ids=["huge number", "lone surrogate", "NUL in a key", "no JSON"],
)
async def test_a_result_that_cannot_be_stored_fails_its_task_and_hurts_no_other(workshop: Workshop, result: Any):
    (bad, bad_run), (good, good_run) = await workshop.running(), await workshop.running()
    bad_run.end(Success(result=result))
    good_run.end()
    assert (await workshop.reaches(good, State.SUCCESS)).result == "done"
    settled = await workshop.reaches(bad, State.FAILURE)
    assert settled.error is not None
    assert settled.error.message


async def test_a_large_result_is_cut_and_marked(workshop: Workshop):
    task, run = await workshop.running()
    run.end(Success(result="ä" * 1_000_000))
    result = (await workshop.reaches(task, State.SUCCESS)).result
    assert result["truncated"]
    assert result["total_bytes"] == 2_000_002
    assert set(result["beginning"]) == {"ä"}


async def test_a_failure_waits_its_back_off_and_keeps_its_attempt(workshop: Workshop):
    task, run = await workshop.running(retry_delay_seconds=50)
    run.end(Failed(error_class=ErrorClass.CONNECTION, code="RESET", message="reset by peer", exit_code=1))
    waiting = await workshop.reaches(task, State.RETRY)
    assert waiting.retry_count == 1
    assert waiting.due_at is not None
    assert 30 < (waiting.due_at - utc_now()).total_seconds() <= 50
    assert waiting.error is not None
    assert (waiting.error.class_, waiting.error.code) == ("connection", "RESET")
    assert (waiting.attempts[0].outcome, waiting.attempts[0].exit_code) == ("retry", 1)


async def test_a_run_that_takes_too_long_is_stopped(workshop: Workshop):
    task, run = await workshop.running(timeout_seconds=0.3)
    settled = await workshop.reaches(task, State.TIMEOUT)
    assert run.stopped
    assert settled.error is not None
    assert settled.error.class_ == "timeout"


async def test_an_agent_that_cannot_be_started_says_why(workshop: Workshop):
    workshop.agent.refuse("AGENT_MISSING")
    task, grant = await workshop.granted()
    await workshop.accept(grant)
    settled = await workshop.reaches(task, State.FAILURE)
    assert settled.error is not None
    assert settled.error.code == "AGENT_MISSING"
    assert await workshop.lines(task) == ["no binary"]
    assert [move.to for move in settled.history] == [State.RECEIVED, State.STARTED, State.FAILURE]


async def test_a_driver_with_a_bug_fails_its_task_and_not_its_worker(workshop: Workshop):
    workshop.agent.error = ZeroDivisionError("a bug")
    task, grant = await workshop.granted()
    await workshop.accept(grant)
    settled = await workshop.reaches(task, State.FAILURE)
    assert settled.error is not None
    assert settled.error.class_ == "system_failure"
    workshop.agent.error = None
    _, run = await workshop.running()
    run.end()
    await workshop.idle()


@pytest.mark.parametrize("where", ["/etc", "root/../..", "link", "missing", "file"])
async def test_a_work_directory_that_may_not_be_used_is_refused(workshop: Workshop, where: str):
    root: Path = workshop.settings.work_roots[0]
    (root / "link").symlink_to("/etc")
    (root / "file").write_text("")
    directory = where if where.startswith("/") else f"{root}/{where}"
    task, grant = await workshop.granted(work_directory=directory)
    await workshop.accept(grant)
    settled = await workshop.reaches(task, State.FAILURE)
    assert settled.error is not None
    assert settled.error.code in {"WORK_DIRECTORY_NOT_ALLOWED", "WORK_DIRECTORY_MISSING"}
    assert workshop.agent.runs == []


# Functions


async def test_a_function_is_cancelled_like_an_agent(workshop: Workshop):
    task, grant = await workshop.granted(type="diagnostic", executor=Executor.ANY, parameters={"sleep_seconds": 60})
    await workshop.accept(grant)
    await workshop.reaches(task, State.RUNNING)
    await workshop.move(task, State.RUNNING, State.CANCELLING)
    settled = await workshop.reaches(task, State.CANCELLED, seconds=2.5)
    assert settled.attempts[0].outcome == "cancelled"


async def test_bad_parameters_in_the_store_fail_a_function(workshop: Workshop):
    task, grant = await workshop.granted(type="diagnostic", executor=Executor.ANY, parameters={"sleep_seconds": -1})
    await workshop.accept(grant)
    settled = await workshop.reaches(task, State.FAILURE)
    assert settled.error is not None
    assert settled.error.code == "INVALID_PARAMETERS"


# Draining


async def test_a_worker_that_stops_hands_its_runs_back_and_burns_no_retry(workshop: Workshop):
    (one, first), (other, second) = await workshop.running(), await workshop.running()
    workshop.stop.set()
    for task in (one, other):
        handed_back = await workshop.reaches(task, State.RETRY)
        assert handed_back.retry_count == handed_back.loss_count == 0
        assert handed_back.due_at is not None
        assert handed_back.due_at <= utc_now()
        assert handed_back.worker_id is None
        assert handed_back.attempts[0].outcome == "retry"
    assert first.stopped
    assert second.stopped
    await workshop.idle()
    (worker,) = await workshop.truth.workers.recent(1)
    assert worker.state in {WorkerState.DRAINING, WorkerState.GONE}


async def test_a_run_that_ends_by_itself_while_its_worker_stops_is_settled_as_it_ended(workshop: Workshop):
    task, run = await workshop.running()
    run.end()
    workshop.stop.set()
    assert (await workshop.reaches(task, State.SUCCESS)).result == "done"


async def test_a_run_being_cancelled_when_its_worker_stops_is_cancelled(workshop: Workshop):
    task, _ = await workshop.running()
    await workshop.move(task, State.RUNNING, State.CANCELLING)
    workshop.stop.set()
    await workshop.reaches(task, State.CANCELLED)
