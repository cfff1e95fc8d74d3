"""Tasks in a real MongoDB: conditional writes, grouped writes, leases by the server's clock, indexed reads."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from codefleet.clock import in_seconds, new_task_id, utc_now
from codefleet.domain.outcomes import Usage
from codefleet.domain.queues import Executor
from codefleet.domain.states import LEASED, TERMINAL, State
from codefleet.domain.tasks import Attempt, Task, TaskError, TaskProgress
from codefleet.domain.transitions import Transition
from codefleet.errors import ConflictError
from codefleet.service import Stores
from codefleet.storage.bson import from_bson, to_bson
from codefleet.storage.tasks import TaskFilter, TaskRepository, initial_move
from tests.support.tasks import make_task


@pytest.fixture
def tasks(stores: Stores) -> TaskRepository:
    return stores.tasks


async def stored(tasks: TaskRepository, **fields: Any) -> Task:
    task = make_task(**fields)
    await tasks.insert(task)
    return task


async def read(tasks: TaskRepository, task: Task) -> Task:
    found = await tasks.get(task.task_id)
    assert found is not None
    return found


def grant(task: Task, worker_id: str = "w") -> Transition:
    return Transition(
        task_id=task.task_id,
        path=(task.state, State.RECEIVED),
        epoch=task.epoch,
        cause="granted",
        actor="scheduler",
        attempt=task.attempt,
        fields={"epoch": task.epoch + 1, "worker_id": worker_id, "due_at": None},
        renews_lease=True,
    )


def move(task: Task, *path: State, **fields: Any) -> Transition:
    values = {"epoch": task.epoch, "cause": "c", "actor": "a", "attempt": task.attempt}
    return Transition(task_id=task.task_id, path=path, **(values | fields))


async def leased(tasks: TaskRepository, state: State = State.RUNNING, **fields: Any) -> Task:
    values = {"state": state, "worker_id": "w", "epoch": 1, "lease_renewed_at": utc_now()}
    return await stored(tasks, **(values | fields))


# Inserting and reading


async def test_a_task_is_read_as_it_was_stored(tasks: TaskRepository):
    now = utc_now()
    task = make_task(
        prompt="naïve \u202e \n 🦊",
        parameters={"output_lines": 3},
        tags=["a", "$b", "c.d"],
        result={"deep": [{"x": None}]},
        error=TaskError(class_="timeout", code="C", message="m"),
        usage=Usage(input_tokens=2**40, cost_usd=0.1),
        progress=TaskProgress(percentage=12.5, total_steps=3),
        attempts=[Attempt(number=1, epoch=1, worker_id="w", started_at=now)],
        scheduled_at=now,
    )
    task.history = [initial_move(task, "user:tester")]
    await tasks.insert(task)
    assert await read(tasks, task) == task


async def test_an_unknown_task_is_none(tasks: TaskRepository):
    assert await tasks.get(new_task_id()) is None
    assert await tasks.get_many([new_task_id()]) == []


async def test_callers_that_ask_for_the_same_task_get_one_of_their_own(tasks: TaskRepository):
    task = await stored(tasks)
    one, other, missing = await asyncio.gather(*map(tasks.get, (task.task_id, task.task_id, "none")))
    assert one == other
    assert one is not other
    assert missing is None


async def test_a_conflict_hurts_no_neighbour_in_its_batch(tasks: TaskRepository):
    await stored(tasks, idempotency_key="used")
    batch = [make_task() for _ in range(20)]
    batch[7].idempotency_key = batch[11].idempotency_key = "new"
    batch[13].idempotency_key = "used"
    batch[17].task_id = batch[0].task_id
    answers = await asyncio.gather(*map(tasks.insert, batch), return_exceptions=True)
    failed = [index for index, answer in enumerate(answers) if answer is not None]
    assert failed == [11, 13, 17]
    assert all(isinstance(answers[index], ConflictError) for index in failed)
    assert len(await tasks.get_many([task.task_id for task in batch])) == 17


async def test_one_key_belongs_to_each_owner_apart(tasks: TaskRepository):
    mine = await stored(tasks, user_id="me", idempotency_key="k")
    theirs = await stored(tasks, user_id="them", idempotency_key="k")
    assert await tasks.by_idempotency_key("me", "k") == mine
    assert await tasks.by_idempotency_key("them", "k") == theirs
    assert await tasks.by_idempotency_key("nobody", "k") is None
    await asyncio.gather(*(stored(tasks, user_id="me") for _ in range(3)))  # no key, no conflict


async def test_of_100_submits_with_one_key_one_is_stored(tasks: TaskRepository):
    answers = await asyncio.gather(*(stored(tasks, idempotency_key="k") for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(answer, Task) for answer in answers) == 1
    assert all(isinstance(answer, Task | ConflictError) for answer in answers)
    assert await tasks.count(TaskFilter(user_id="tester")) == 1


@pytest.mark.parametrize(
    "poison",
    [{"n": 2**63}, {"text": "lone \ud800 surrogate"}, {"nul\0key": 1}, {"not a value": object}],
    ids=["huge number", "lone surrogate", "NUL in a key", "no BSON"],
)
async def test_what_cannot_be_stored_hurts_no_neighbour_in_its_batch(tasks: TaskRepository, poison: dict[str, Any]):
    running = [await leased(tasks) for _ in range(5)]
    ends = [
        move(task, State.RUNNING, State.SUCCESS, fields={"result": poison if index == 2 else index})
        for index, task in enumerate(running)
    ]
    answers = await asyncio.gather(*map(tasks.apply, ends), return_exceptions=True)
    assert isinstance(answers.pop(2), Exception)
    assert answers == [True] * 4
    batch = [make_task(parameters=poison if index == 2 else {}) for index in range(5)]
    answers = await asyncio.gather(*map(tasks.insert, batch), return_exceptions=True)
    assert isinstance(answers.pop(2), Exception)
    assert answers == [None] * 4


async def test_what_the_server_refuses_hurts_no_neighbour_in_its_batch(tasks: TaskRepository):
    running = [await leased(tasks) for _ in range(5)]
    ends = [move(task, State.RUNNING, State.SUCCESS) for task in running]
    ends[2].fields["history"] = "both set and pushed onto"
    answers = await asyncio.gather(*map(tasks.apply, ends), return_exceptions=True)
    assert isinstance(answers.pop(2), Exception)
    assert answers == [True] * 4
    assert (await read(tasks, running[2])).state is State.RUNNING


# Transitions


async def test_a_move_is_recorded_with_all_its_steps(tasks: TaskRepository):
    task = await leased(tasks, State.RECEIVED, attempt=1)
    transition = move(task, State.RECEIVED, State.STARTED, State.RUNNING, fields={"session_id": "s"})
    assert await tasks.apply(transition)
    after = await read(tasks, task)
    assert after.state is State.RUNNING
    assert after.session_id == "s"
    assert after.updated_at >= task.updated_at
    assert [(entry.from_, entry.to) for entry in after.history] == [
        (State.RECEIVED, State.STARTED),
        (State.STARTED, State.RUNNING),
    ]
    assert {(entry.id, entry.cause, entry.actor, entry.attempt) for entry in after.history} == {
        (transition.id, "c", "a", 1),
    }


@pytest.mark.parametrize(
    "condition",
    [
        {"path": (State.PENDING, State.CANCELLED)},
        {"epoch": 0},
        {"epoch": 2},
        {"lease_as_of": utc_now() - timedelta(hours=1)},
        {"task_id": "unknown"},
    ],
    ids=["wrong state", "earlier epoch", "later epoch", "renewed lease", "unknown task"],
)
async def test_a_move_whose_condition_does_not_hold_changes_nothing(tasks: TaskRepository, condition: dict[str, Any]):
    task = await leased(tasks)
    values = {
        "task_id": task.task_id,
        "path": (State.RUNNING, State.SUCCESS),
        "epoch": 1,
        "cause": "c",
        "actor": "a",
        "attempt": 1,
        "fields": {"result": "wrong"},
        "appends": {"tags": "wrong"},
        "renews_lease": True,
    }
    assert not await tasks.apply(Transition(**(values | condition)))
    assert await read(tasks, task) == task


async def test_a_stale_worker_cannot_write_over_the_new_one(tasks: TaskRepository):
    task = await stored(tasks)
    assert await tasks.apply(grant(task, "old"))
    held_by_old = await read(tasks, task)
    assert await tasks.apply(move(held_by_old, State.RECEIVED, State.PENDING, fields={"worker_id": None}))
    assert await tasks.apply(grant(await read(tasks, task), "new"))
    held_by_new = await read(tasks, task)

    assert not await tasks.apply(move(held_by_old, State.RECEIVED, State.STARTED))
    assert await tasks.renew("old", {task.task_id: held_by_old.epoch}) == {}
    assert await tasks.renew("old", {task.task_id: held_by_new.epoch}) == {}
    await tasks.set_progress(task.task_id, held_by_old.epoch, TaskProgress(percentage=99))
    await tasks.set_session(task.task_id, held_by_old.epoch, "stale")
    assert await read(tasks, task) == held_by_new

    assert await tasks.apply(move(held_by_new, State.RECEIVED, State.STARTED, State.RUNNING))
    await tasks.set_progress(task.task_id, held_by_new.epoch, TaskProgress(percentage=1))
    assert (await read(tasks, task)).progress.percentage == 1


async def test_a_move_repeated_after_a_lost_reply_is_true_and_changes_nothing_twice(tasks: TaskRepository):
    task = await leased(tasks)
    end = move(task, State.RUNNING, State.RETRY, fields={"retry_count": 1}, appends={"tags": "once"})
    assert await tasks.apply(end)
    after = await read(tasks, task)
    assert await asyncio.gather(*(tasks.apply(end) for _ in range(3))) == [True] * 3
    assert await read(tasks, task) == after
    assert not await tasks.apply(move(task, State.RUNNING, State.RETRY))


async def test_a_repeated_move_is_recognised_after_others_have_followed(tasks: TaskRepository):
    task = await stored(tasks)
    first = grant(task)
    assert await tasks.apply(first)
    received = await read(tasks, task)
    assert await tasks.apply(move(received, State.RECEIVED, State.STARTED, State.RUNNING))
    assert await tasks.apply(move(received, State.RUNNING, State.CANCELLING))
    assert await tasks.apply(move(received, State.CANCELLING, State.CANCELLED))
    assert await tasks.apply(first)
    assert (await read(tasks, task)).state is State.CANCELLED


async def test_each_of_a_mixed_batch_gets_its_own_answer(tasks: TaskRepository):
    running = [await leased(tasks, **({"epoch": 5} if index % 3 == 0 else {})) for index in range(30)]
    answers = await asyncio.gather(
        *(tasks.apply(move(task, State.RUNNING, State.SUCCESS, epoch=1)) for task in running)
    )
    assert answers == [index % 3 != 0 for index in range(30)]
    states = [(await read(tasks, task)).state for task in running]
    assert states == [State.RUNNING if index % 3 == 0 else State.SUCCESS for index in range(30)]


async def test_of_200_who_want_one_task_exactly_one_gets_it(tasks: TaskRepository):
    task = await stored(tasks)
    answers = await asyncio.gather(*(tasks.apply(grant(task, f"w{number}")) for number in range(200)))
    assert sum(answers) == 1
    after = await read(tasks, task)
    assert after.worker_id == f"w{answers.index(True)}"
    assert after.epoch == 1
    assert len(after.history) == 1


async def test_several_processes_agree_on_who_got_it(stores: Stores):
    task = await stored(stores.tasks)
    processes = [TaskRepository(stores.mongo) for _ in range(8)]
    answers = await asyncio.gather(
        *(process.apply(grant(task, f"w{number}")) for number, process in enumerate(processes * 10)),
    )
    assert sum(answers) == 1


# Leases


async def test_renewing_tells_what_is_held_what_is_being_cancelled_and_what_is_lost(tasks: TaskRepository):
    running, cancelling = await leased(tasks), await leased(tasks, State.CANCELLING)
    other_epoch, elsewhere = await leased(tasks, epoch=2), await leased(tasks, worker_id="other")
    ended, waiting = await stored(tasks, state=State.SUCCESS, epoch=1), await stored(tasks, epoch=1)
    all_of_them = [running, cancelling, other_epoch, elsewhere, ended, waiting]
    told = await tasks.renew("w", {task.task_id: 1 for task in all_of_them} | {"unknown": 1})
    assert told == {running.task_id: State.RUNNING, cancelling.task_id: State.CANCELLING}
    for task in (other_epoch, elsewhere, ended, waiting):
        assert await read(tasks, task) == task
    assert await tasks.renew("w", {}) == {}


async def test_renewing_sets_the_time_of_the_server(tasks: TaskRepository):
    task = await leased(tasks, lease_renewed_at=utc_now() - timedelta(days=1))
    await tasks.renew("w", {task.task_id: 1})
    renewed_at = (await read(tasks, task)).lease_renewed_at
    assert renewed_at is not None
    assert abs(utc_now() - renewed_at) < timedelta(minutes=1)


async def test_a_lease_ends_by_the_servers_clock_earlier_if_it_was_never_claimed(tasks: TaskRepository):
    async def granted(state: State, age_seconds: float) -> str:
        lease_renewed_at = utc_now() - timedelta(seconds=age_seconds)
        return (await leased(tasks, state, lease_renewed_at=lease_renewed_at)).task_id

    unclaimed = await granted(State.RECEIVED, 100)
    silent = {await granted(state, 250) for state in LEASED - {State.RECEIVED}}
    for state in LEASED:
        await granted(state, 10)
    for state in LEASED - {State.RECEIVED}:
        await granted(state, 100)
    for state in TERMINAL | {State.PENDING, State.RETRY, State.PAUSED}:
        await granted(state, 250)

    ended = await tasks.ended_leases(claim_seconds=50, lease_seconds=200, limit=100)
    assert {task.task_id for task in ended} == {unclaimed} | silent
    assert len(await tasks.ended_leases(claim_seconds=50, lease_seconds=200, limit=2)) == 2
    long_claim = await tasks.ended_leases(claim_seconds=900, lease_seconds=90, limit=100)
    assert unclaimed in {task.task_id for task in long_claim}


async def test_all_leases_in_force_are_listed(tasks: TaskRepository):
    held = [await leased(tasks, state) for state in LEASED]
    await stored(tasks)
    await stored(tasks, state=State.SUCCESS)
    leases = await tasks.leases()
    assert {(lease.task_id, lease.worker_id, lease.state) for lease in leases} == {
        (task.task_id, "w", task.state) for task in held
    }


# What waits


async def test_candidates_are_what_waits_and_may_start_now(tasks: TaskRepository):
    pending, retry = await stored(tasks), await stored(tasks, state=State.RETRY, epoch=3, attempt=2)
    due = await stored(tasks, due_at=in_seconds(-1))
    others = [await stored(tasks, state=state) for state in frozenset(State) - {State.PENDING, State.RETRY}]
    backing_off = await stored(tasks, state=State.RETRY, due_at=in_seconds(60))
    asked = [task.task_id for task in (pending, retry, due, backing_off, *others)]
    found = await tasks.candidates([*asked, "unknown"])
    assert set(found) == {pending.task_id, retry.task_id, due.task_id}
    assert (found[retry.task_id].epoch, found[retry.task_id].attempt) == (3, 2)


# Lists


async def test_pages_show_every_match_once_newest_first_and_without_bulk(tasks: TaskRepository):
    for index in range(23):
        await stored(
            tasks,
            project_id=f"p{index % 2}",
            state=State.SUCCESS if index % 3 else State.PENDING,
            tags=["x"],
            result="large",
        )
    wanted = TaskFilter(project_id="p0", states=(State.SUCCESS, State.FAILURE), tag="x")
    seen, before = [], None
    while page := await tasks.page(wanted, limit=3, before=before):
        seen += page
        before = page[-1].task_id
    ids = [task.task_id for task in seen]
    assert ids == sorted(set(ids), reverse=True)
    assert len(seen) == await tasks.count(wanted) == sum(not index % 2 and bool(index % 3) for index in range(23))
    assert {(task.project_id, task.state, task.result) for task in seen} == {("p0", State.SUCCESS, None)}
    assert [task.task_id for task in await tasks.page(wanted, limit=3, offset=2)] == ids[2:5]
    assert await tasks.page(TaskFilter(user_id="somebody else"), limit=3) == []
    assert await tasks.count(TaskFilter()) == 23


async def test_counts_by_state_and_queue(tasks: TaskRepository):
    await stored(tasks)
    await leased(tasks)
    await leased(tasks, State.RECEIVED, executor=Executor.CLAUDE)
    counts = await tasks.count_by_state()
    assert counts == dict.fromkeys(State, 0) | {State.PENDING: 1, State.RUNNING: 1, State.RECEIVED: 1}
    assert await tasks.count_running_by_queue() == {"default": 1, "claude_execution": 1}


# Indexes


class Watched:
    """A collection that explains each `find` before it answers it."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self.plans: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def find(self, *args: Any, **options: Any) -> Any:
        return WatchedCursor(self._collection.find(*args, **options), self.plans)


class WatchedCursor:
    def __init__(self, cursor: Any, plans: list[dict[str, Any]]) -> None:
        self._cursor = cursor
        self._plans = plans

    def __getattr__(self, name: str) -> Any:
        def chained(*args: Any) -> "WatchedCursor":
            return WatchedCursor(getattr(self._cursor, name)(*args), self._plans)

        return chained

    async def to_list(self, length: int | None) -> Any:
        self._plans.append(await self._cursor.clone().explain())
        return await self._cursor.to_list(length)


def stages(plan: dict[str, Any]) -> set[str]:
    found = {plan["stage"]} if "stage" in plan else set()
    for value in plan.values():
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                found |= stages(child)
    return found


async def test_hot_queries_read_what_they_return_by_an_index(tasks: TaskRepository):
    await asyncio.gather(*(stored(tasks, state=State.SUCCESS) for _ in range(400)))
    await asyncio.gather(*(stored(tasks, due_at=in_seconds(500)) for _ in range(200)))
    await asyncio.gather(*(stored(tasks, project_id="rare", user_id="rare", tags=["common", "rare"]) for _ in range(5)))
    await asyncio.gather(*(leased(tasks, lease_renewed_at=in_seconds(-100)) for _ in range(5)))
    watched = Watched(tasks._tasks)
    tasks._tasks = watched
    waiting = TaskFilter(states=(State.PENDING, State.RETRY))
    queries = {
        "ended leases": tasks.ended_leases(claim_seconds=1, lease_seconds=1, limit=5),
        "leases": tasks.leases(),
        "list by state": tasks.page(TaskFilter(states=(State.RUNNING,)), limit=5),
        "list by project": tasks.page(TaskFilter(project_id="rare"), limit=5),
        "list by tag": tasks.page(TaskFilter(tag="rare"), limit=5),
        "list by owner": tasks.page(TaskFilter(user_id="rare"), limit=5),
        "list of everything": tasks.page(TaskFilter(), limit=5),
        "list by states": tasks.page(waiting, limit=5),
    }
    for name, query in queries.items():
        watched.plans.clear()
        assert await query, name
        for plan in watched.plans:
            statistics = plan["executionStats"]
            assert not {"COLLSCAN", "SORT"} & stages(plan["queryPlanner"]["winningPlan"]), name
            assert statistics["totalDocsExamined"] <= max(5, 3 * statistics["nReturned"]), name


async def test_an_idempotency_key_is_found_without_reading_its_owners_other_tasks(stores: Stores):
    await asyncio.gather(*(stored(stores.tasks, idempotency_key=f"k{index}") for index in range(200)))
    level = await stores.mongo.database.command("profile", 2)
    assert level["ok"]
    found = await stores.tasks.by_idempotency_key("tester", "k7")
    await stores.mongo.database.command("profile", 0)
    assert found is not None
    ran = await stores.mongo.collection("system.profile").find_one({"command.find": "tasks"})
    assert ran["docsExamined"] == 1


async def test_bson_keeps_times_and_words():
    task = make_task(due_at=utc_now())
    raw = to_bson(task)
    assert raw["_id"] == task.task_id
    assert raw["due_at"] == task.due_at
    assert type(raw["state"]) is str
    assert from_bson(raw, Task) == task
