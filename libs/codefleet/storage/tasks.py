"""Tasks in MongoDB: how they are written. How they are read is `task_reads.py`."""

from collections.abc import Sequence
from datetime import datetime

from pymongo import InsertOne, UpdateOne
from pymongo.errors import BulkWriteError

from codefleet.clock import utc_now
from codefleet.domain.states import LEASED, WAITING, State
from codefleet.domain.tasks import Move, Task, TaskProgress
from codefleet.domain.transitions import Transition
from codefleet.errors import ConflictError, UnavailableError
from codefleet.storage.bson import DUPLICATE_KEY, to_bson
from codefleet.storage.group_commit import GroupCommit
from codefleet.storage.mongo import Mongo, Raw, translated
from codefleet.storage.task_reads import Candidate, Lease, ReadyPage, TaskFilter, TaskReads, Waiting

__all__ = ["Candidate", "Lease", "ReadyPage", "TaskFilter", "TaskRepository", "Waiting", "initial_move"]

_REMEMBERED_MOVES = 8
"""How far back a writer looks for its own move after a reply was lost; at most a few can follow within that time."""

_waiting = {"$in": list(WAITING)}
_leased = {"$in": list(LEASED)}


class TaskRepository(TaskReads):
    """Inserts and transitions are group-committed: a call returns when its own write is durable."""

    def __init__(self, mongo: Mongo) -> None:
        super().__init__(mongo)
        self._inserts: GroupCommit[Raw, None] = GroupCommit(self._insert_batch)
        self._transitions: GroupCommit[Transition, bool] = GroupCommit(self._transition_batch)

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

    async def clear_due(self, task_ids: Sequence[str], now: datetime) -> None:
        """Notes that these waiting tasks may start, which were due at `now`; a later due time is left."""
        with translated():
            await self._tasks.update_many(
                {"_id": {"$in": list(task_ids)}, "state": _waiting, "due_at": {"$lte": now}},
                {"$set": {"due_at": None}},
            )

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
    if transition.worker_id is not None:
        filter_["worker_id"] = transition.worker_id
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
    if item.get("code") == DUPLICATE_KEY:
        return ConflictError("A task with this id or idempotency key already exists")
    return UnavailableError("The database refused the write")


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
