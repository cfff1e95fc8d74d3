"""Reading tasks from MongoDB. Together with `tasks.py` the only module that builds a filter over them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from pymongo.read_concern import ReadConcern

from codefleet.clock import utc_now
from codefleet.domain.queues import Queue
from codefleet.domain.states import LEASED, WAITING, State
from codefleet.domain.tasks import Task
from codefleet.storage.bson import all_from_bson, from_bson, projection_of
from codefleet.storage.documents import STATE_INDEX, WAITING_INDEX
from codefleet.storage.group_commit import GroupCommit
from codefleet.storage.mongo import Mongo, Raw, translated

_LINEARIZABLE_MS = 2_500
_LIST_MS = 2_500
"""A list that takes longer has lost its reader; the server stops working on it as well."""
_LONGEST_WAIT_BATCH = 100
_WITHOUT_BULK = {"history": 0, "attempts": 0, "result": 0}

_waiting = {"$in": sorted(WAITING)}
_leased = {"$in": list(LEASED)}
_in_any_queue: Raw = {"queue": {"$in": list(Queue)}, "state": _waiting}
"""The queues are named because the index of what waits begins with them."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True, rename={"task_id": "_id"}):
    """What the scheduler needs to know of a waiting task."""

    task_id: str
    state: State
    epoch: int
    attempt: int
    type: str


class Lease(msgspec.Struct, frozen=True, kw_only=True, rename={"task_id": "_id"}):
    """Who holds a task, and what has been asked of it meanwhile."""

    task_id: str
    state: State
    epoch: int
    worker_id: str


class Waiting(msgspec.Struct, frozen=True, kw_only=True, rename={"task_id": "_id"}):
    """What the ready index needs to know of a task."""

    task_id: str
    queue: Queue
    project_id: str
    effective_priority: int
    scheduled_at: datetime | None
    created_at: datetime


class ReadyPage(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks in order of their ids. The next page begins after `next_after`; None says that there is none."""

    tasks: list[Waiting]
    next_after: str | None


class _Waited(msgspec.Struct, frozen=True, kw_only=True):
    state: State
    due_at: datetime | None
    scheduled_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def since(self) -> datetime:
        """Since when the task has been able to start.

        A retry's due time is forgotten once it is in the ready index; from then on its last move stands for it.
        """
        if self.state is State.RETRY:
            return self.due_at or self.updated_at
        return self.scheduled_at or self.created_at


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks a list shows; an empty field does not restrict it."""

    states: tuple[State, ...] = ()
    project_id: str | None = None
    user_id: str | None = None
    type: str | None = None
    executor: str | None = None
    priority: int | None = None
    tag: str | None = None


class TaskReads:
    """The reading half of `TaskRepository`."""

    def __init__(self, mongo: Mongo) -> None:
        self._tasks = mongo.collection("tasks")
        self._gets: GroupCommit[str, Task | None] = GroupCommit(self._get_batch)

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
            cursor = (
                self._tasks.find(filter_, _WITHOUT_BULK).sort("_id", -1).skip(offset).limit(limit).max_time_ms(_LIST_MS)
            )
            return all_from_bson(await cursor.to_list(limit), Task)

    async def count(self, wanted: TaskFilter) -> int:
        """How many tasks a list has: exact, except that of all tasks it is what the collection's metadata say.

        Raises:
            UnavailableError: there are too many to count in time.
        """
        filter_ = _list_filter(wanted)
        with translated():
            if not filter_:
                # MongoDB's own count of a collection can stay wrong after it was killed, so the ids are counted.
                return await self._tasks.count_documents({}, hint="_id_", maxTimeMS=_LIST_MS)
            return await self._tasks.count_documents(filter_, maxTimeMS=_LIST_MS)

    async def count_by_state(self) -> dict[State, int]:
        """Reads one index entry for each task there is: not for every second."""
        group = {"$group": {"_id": "$state", "count": {"$sum": 1}}}
        with translated():
            rows = await self._tasks.aggregate([group], hint=STATE_INDEX).to_list(None)
        counts = {row["_id"]: row["count"] for row in rows}
        return {state: counts.get(state, 0) for state in State}

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
                projection_of(Candidate),
            ).to_list(None)
        return {raw["_id"]: from_bson(raw, Candidate) for raw in found}

    async def due(self, now: datetime, limit: int) -> list[Waiting]:
        """Waiting tasks whose schedule or back-off has run out by `now` but that are not in the ready index yet."""
        due = {**_in_any_queue, "due_at": {"$lte": now}}
        with translated():
            cursor = self._tasks.find(due, projection_of(Waiting)).hint(WAITING_INDEX).sort("due_at", 1)
            return all_from_bson(await cursor.limit(limit).to_list(limit), Waiting)

    async def ready_after(self, after: str, before: str, limit: int) -> ReadyPage:
        """Waiting tasks that may start now with ids between `after` and `before`."""
        ready = {**_in_any_queue, "due_at": None, "_id": {"$gt": after, "$lt": before}}
        with translated():
            cursor = self._tasks.find(ready, projection_of(Waiting)).hint(WAITING_INDEX).sort("_id", 1)
            found = await cursor.limit(limit).to_list(limit)
        # By what was read, not by what was understood: a document that is left out does not end the paging.
        next_after = found[-1]["_id"] if len(found) == limit else None
        return ReadyPage(tasks=all_from_bson(found, Waiting), next_after=next_after)

    async def waiting_since(self, queue: Queue) -> datetime | None:
        """Since when that task of a queue has been able to start which has waited longest; None if none waits."""
        waiting = {"queue": queue, "state": _waiting}
        with translated():
            due = self._tasks.find({**waiting, "due_at": {"$lte": utc_now()}}, projection_of(_Waited))
            found = await due.hint(WAITING_INDEX).sort("due_at", 1).limit(1).to_list(1)
            longest = min((task.since for task in all_from_bson(found, _Waited)), default=None)
            after = ""
            while True:
                ready = {**waiting, "due_at": None, "_id": {"$gt": after}}
                cursor = self._tasks.find(ready, projection_of(_Waited)).hint(WAITING_INDEX).sort("_id", 1)
                found = await cursor.limit(_LONGEST_WAIT_BATCH).to_list(_LONGEST_WAIT_BATCH)
                for task in all_from_bson(found, _Waited):
                    # Nothing waits longer than it exists, and the ids are in the order of creation.
                    if longest is not None and task.created_at >= longest:
                        return longest
                    longest = task.since if longest is None else min(longest, task.since)
                if len(found) < _LONGEST_WAIT_BATCH:
                    return longest
                after = found[-1]["_id"]

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

    async def _leases(self, filter_: Raw) -> list[Lease]:
        found = await self._tasks.find(filter_, projection_of(Lease)).to_list(None)
        return all_from_bson(found, Lease)

    async def _get_batch(self, batch: Sequence[str]) -> Sequence[Task | None]:
        with translated():
            found = await self._tasks.find({"_id": {"$in": list(set(batch))}}).to_list(None)
        by_id = {raw["_id"]: raw for raw in found}
        # Each caller has a task of its own, even if two asked for the same.
        return [from_bson(by_id[task_id], Task) if task_id in by_id else None for task_id in batch]


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
