"""Tasks in MongoDB: how they are written and read. No other module builds a filter over them."""

from collections.abc import Sequence
from typing import Any

import msgspec
from pymongo import InsertOne, UpdateOne
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from codefleet.clock import utc_now
from codefleet.domain.states import LEASED, WAITING, State
from codefleet.domain.tasks import Move, Task, TaskProgress
from codefleet.domain.transitions import Transition
from codefleet.errors import ConflictError, UnavailableError
from codefleet.storage.bson import all_from_bson, from_bson, to_bson
from codefleet.storage.group_commit import GroupCommit
from codefleet.storage.mongo import Mongo, Raw, translated

_DUPLICATE_KEY = 11000
_REMEMBERED_MOVES = 8
"""How far back a writer looks for its own move after a reply was lost; at most a few can follow within that time."""

_LINEARIZABLE_MS = 2_500
_WITHOUT_BULK = {"history": 0, "attempts": 0, "result": 0}

_waiting = {"$in": list(WAITING)}
_leased = {"$in": list(LEASED)}


class Candidate(msgspec.Struct, frozen=True, kw_only=True, rename={"task_id": "_id"}):
    """What the scheduler needs to know of a waiting task."""

    task_id: str
    state: State
    epoch: int
    attempt: int


class Lease(msgspec.Struct, frozen=True, kw_only=True, rename={"task_id": "_id"}):
    """Who holds a task, and what has been asked of it meanwhile."""

    task_id: str
    state: State
    epoch: int
    worker_id: str


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks a list shows; an empty field does not restrict it."""

    states: tuple[State, ...] = ()
    project_id: str | None = None
    user_id: str | None = None
    type: str | None = None
    executor: str | None = None
    priority: int | None = None
    tag: str | None = None


class TaskRepository:
    """Inserts and transitions are group-committed: a call returns when its own write is durable."""

    def __init__(self, mongo: Mongo) -> None:
        self._tasks = mongo.collection("tasks")
        self._inserts: GroupCommit[Raw, None] = GroupCommit(self._insert_batch)
        self._transitions: GroupCommit[Transition, bool] = GroupCommit(self._transition_batch)
        self._gets: GroupCommit[str, Task | None] = GroupCommit(self._get_batch)

    # Writes

    async def insert(self, task: Task) -> None:
        """Stores a new task.

        Raises:
            ConflictError: its owner has used its idempotency key before.
            UnavailableError: MongoDB is away; the task may or may not have been stored.
        """
        await self._inserts.submit(to_bson(task))

    async def apply(self, transition: Transition) -> bool:
        """Moves a task; False if it was not in the expected state or epoch and nothing changed.

        The answer is true of this very write, also when MongoDB's reply to it was lost.

        Raises:
            UnavailableError: MongoDB is away; `apply` may be called again with the same transition.
        """
        return await self._transitions.submit(transition)

    async def renew(self, worker_id: str, epochs: dict[str, int]) -> dict[str, State]:
        """Renews the leases that `worker_id` still holds, given as task → epoch, and tells their states.

        A task that is missing from the answer is lost to this worker.
        """
        if not epochs:
            return {}
        with translated():
            await self._tasks.bulk_write(
                [
                    UpdateOne(
                        {"_id": task_id, "epoch": epoch, "worker_id": worker_id, "state": _leased},
                        {"$currentDate": {"lease_renewed_at": True}},
                    )
                    for task_id, epoch in epochs.items()
                ],
                ordered=False,
            )
            held = await self._leases({"_id": {"$in": list(epochs)}, "worker_id": worker_id, "state": _leased})
        return {lease.task_id: lease.state for lease in held if epochs[lease.task_id] == lease.epoch}

    async def set_progress(self, task_id: str, epoch: int, progress: TaskProgress) -> None:
        """Stores how far a run is, unless its epoch is over."""
        with translated():
            await self._tasks.update_one(
                {"_id": task_id, "epoch": epoch, "state": _leased},
                {"$set": {"progress": to_bson(progress), "updated_at": utc_now()}},
            )

    async def set_session(self, task_id: str, epoch: int, session_id: str) -> None:
        """Stores the agent's session of a run, unless its epoch is over."""
        with translated():
            await self._tasks.update_one(
                {"_id": task_id, "epoch": epoch, "state": _leased},
                {"$set": {"session_id": session_id}},
            )

    async def clear_due(self, task_ids: Sequence[str]) -> None:
        """Notes that these waiting tasks may start now."""
        with translated():
            await self._tasks.update_many(
                {"_id": {"$in": list(task_ids)}, "state": _waiting},
                {"$set": {"due_at": None}},
            )

    # Reads

    async def get(self, task_id: str) -> Task | None:
        """The task as of now. Reads that come together go out as one query."""
        return await self._gets.submit(task_id)

    async def get_many(self, task_ids: Sequence[str]) -> list[Task]:
        with translated():
            found = await self._tasks.find({"_id": {"$in": list(task_ids)}}).to_list(None)
        return all_from_bson(found, Task)

    async def by_idempotency_key(self, user_id: str, key: str) -> Task | None:
        """The owner's task with this key, once it is durable: another process may be storing it right now."""
        # Linearizable: the answer waits until a majority has what it shows.
        tasks = self._tasks.with_options(read_concern=ReadConcern("linearizable"))
        with translated():
            # The type is said again because only then does MongoDB see that its partial index will do.
            wanted = {"user_id": user_id, "idempotency_key": {"$eq": key, "$type": "string"}}
            raw = await tasks.find_one(wanted, max_time_ms=_LINEARIZABLE_MS)
        return None if raw is None else from_bson(raw, Task)

    async def page(self, wanted: TaskFilter, *, limit: int, offset: int = 0, before: str | None = None) -> list[Task]:
        """Newest first, without history, attempts and results.

        Args:
            before: the id of the last task of the page before this one.
        """
        filter_ = _list_filter(wanted)
        if before is not None:
            filter_["_id"] = {"$lt": before}
        with translated():
            cursor = self._tasks.find(filter_, _WITHOUT_BULK).sort("_id", -1).skip(offset).limit(limit)
            return all_from_bson(await cursor.to_list(limit), Task)

    async def count(self, wanted: TaskFilter) -> int:
        filter_ = _list_filter(wanted)
        with translated():
            if not filter_:
                return await self._tasks.estimated_document_count()
            return await self._tasks.count_documents(filter_)

    async def count_by_state(self) -> dict[State, int]:
        with translated():
            return {state: await self._tasks.count_documents({"state": state}) for state in State}

    async def count_running_by_queue(self) -> dict[str, int]:
        with translated():
            rows = await self._tasks.aggregate(
                [{"$match": {"state": _leased}}, {"$group": {"_id": "$queue", "count": {"$sum": 1}}}],
            ).to_list(None)
        return {row["_id"]: row["count"] for row in rows}

    async def candidates(self, task_ids: Sequence[str]) -> dict[str, Candidate]:
        """Those of the given tasks that wait and may start now, by id."""
        # A left-over index entry must not cut a back-off short.
        not_later = {"$not": {"$gt": utc_now()}}
        with translated():
            found = await self._tasks.find(
                {"_id": {"$in": list(task_ids)}, "state": _waiting, "due_at": not_later},
                {"state": 1, "epoch": 1, "attempt": 1},
            ).to_list(None)
        return {raw["_id"]: from_bson(raw, Candidate) for raw in found}

    async def due(self, limit: int) -> list[Task]:
        """Waiting tasks whose schedule or back-off has run out but that are not in the ready index yet."""
        with translated():
            # The type again for the sake of the partial index.
            due = {"$lte": utc_now(), "$type": "date"}
            cursor = self._tasks.find({"due_at": due, "state": _waiting}).sort("due_at", 1)
            return all_from_bson(await cursor.limit(limit).to_list(limit), Task)

    async def ready_after(self, after: str, before: str, limit: int) -> list[Task]:
        """Waiting tasks that may start now with ids between `after` and `before`, in order of their ids."""
        found: list[Raw] = []
        with translated():
            for state in WAITING:
                cursor = self._tasks.find({"state": state, "_id": {"$gt": after, "$lt": before}, "due_at": None})
                found += await cursor.sort("_id", 1).limit(limit).to_list(limit)
        return all_from_bson(sorted(found, key=lambda raw: str(raw["_id"]))[:limit], Task)

    async def oldest_ready(self, queue: str) -> Task | None:
        with translated():
            raw = await self._tasks.find_one(
                {"state": State.PENDING, "queue": queue, "due_at": None},
                sort=[("_id", 1)],
            )
        return None if raw is None else from_bson(raw, Task)

    async def leases(self) -> list[Lease]:
        """Every lease in force, ended ones included until they are reclaimed."""
        with translated():
            return await self._leases({"lease_renewed_at": {"$type": "date"}, "state": _leased})

    async def ended_leases(self, *, claim_seconds: float, lease_seconds: float, limit: int) -> list[Task]:
        """Tasks whose worker has not claimed, or not renewed, in time by MongoDB's own clock."""
        ended = [
            {"$and": [{"$eq": ["$state", State.RECEIVED]}, _older_than(claim_seconds)]},
            _older_than(lease_seconds),
        ]
        with translated():
            cursor = self._tasks.find(
                {"lease_renewed_at": {"$type": "date"}, "state": _leased, "$expr": {"$or": ended}},
            )
            return all_from_bson(await cursor.limit(limit).to_list(limit), Task)

    # How

    async def _leases(self, filter_: Raw) -> list[Lease]:
        found = await self._tasks.find(filter_, {"state": 1, "epoch": 1, "worker_id": 1}).to_list(None)
        return all_from_bson(found, Lease)

    async def _get_batch(self, batch: Sequence[str]) -> Sequence[Task | None]:
        with translated():
            found = await self._tasks.find({"_id": {"$in": list(set(batch))}}).to_list(None)
        by_id = {raw["_id"]: raw for raw in found}
        # Each caller has a task of its own, even if two asked for the same.
        return [from_bson(by_id[task_id], Task) if task_id in by_id else None for task_id in batch]

    async def _insert_batch(self, batch: Sequence[Raw]) -> Sequence[Exception | None]:
        failed: dict[int, Exception] = {}
        with translated():
            try:
                await self._tasks.bulk_write([InsertOne(raw) for raw in batch], ordered=False)
            except BulkWriteError as error:
                if error.details.get("writeConcernErrors"):
                    raise UnavailableError("The database did not confirm the write") from error
                for item in error.details["writeErrors"]:
                    failed[item["index"]] = _write_error(item)
        return [failed.get(index) for index in range(len(batch))]

    async def _transition_batch(self, batch: Sequence[Transition]) -> Sequence[bool | Exception]:
        with translated():
            outcome = await self._tasks.bulk_write([_update(transition) for transition in batch], ordered=False)
            if outcome.matched_count == len(batch):
                return [True] * len(batch)
            recent = await self._tasks.find(
                {"_id": {"$in": [transition.task_id for transition in batch]}},
                {"moves": {"$slice": ["$history.id", -_REMEMBERED_MOVES]}},
            ).to_list(None)
        made = {move_id for raw in recent for move_id in raw["moves"]}
        return [transition.id in made for transition in batch]


def _update(transition: Transition) -> UpdateOne:
    now = utc_now()
    filter_: Raw = {"_id": transition.task_id, "state": transition.path[0]}
    if transition.epoch is not None:
        filter_["epoch"] = transition.epoch
    if transition.lease_as_of is not None:
        filter_["lease_renewed_at"] = transition.lease_as_of
    moves = [
        Move(
            id=transition.id,
            from_=from_,
            to=to,
            at=now,
            cause=transition.cause,
            actor=transition.actor,
            attempt=transition.attempt,
        )
        for from_, to in transition.steps
    ]
    update: Raw = {
        "$set": {"state": transition.path[-1], "updated_at": now, **to_bson(transition.fields)},
        "$push": {"history": {"$each": to_bson(moves)}, **to_bson(transition.appends)},
    }
    if transition.renews_lease:
        update["$currentDate"] = {"lease_renewed_at": True}
    return UpdateOne(filter_, update)


def _write_error(item: Raw) -> Exception:
    if item.get("code") == _DUPLICATE_KEY:
        return ConflictError("A task with this id or idempotency key already exists")
    return UnavailableError("The database refused the write")


def _older_than(seconds: float) -> Raw:
    return {"$lt": ["$lease_renewed_at", {"$subtract": ["$$NOW", round(seconds * 1000)]}]}


def _list_filter(wanted: TaskFilter) -> Raw:
    filter_: Raw = {}
    if wanted.states:
        filter_["state"] = {"$in": list(wanted.states)} if len(wanted.states) > 1 else wanted.states[0]
    for field in ("project_id", "user_id", "type", "executor", "priority"):
        value: Any = getattr(wanted, field)
        if value is not None:
            filter_[field] = value
    if wanted.tag is not None:
        filter_["tags"] = wanted.tag
    return filter_


def initial_move(task: Task, actor: str) -> Move:
    """The history entry of a submit; a task has one, so the task's id names it."""
    return Move(
        id=task.task_id,
        from_=None,
        to=task.state,
        at=task.created_at,
        cause="submitted",
        actor=actor,
        attempt=0,
    )
