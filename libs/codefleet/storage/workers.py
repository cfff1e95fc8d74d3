"""The register of workers."""

from codefleet.domain.workers import Worker, WorkerState
from codefleet.storage.bson import all_from_bson, to_bson
from codefleet.storage.documents import WorkerDocument
from codefleet.storage.mongo import Mongo, translated

_PRESENT = [WorkerState.ONLINE, WorkerState.DRAINING]


class WorkerRepository:
    def __init__(self, mongo: Mongo) -> None:
        self._workers = mongo.collection(WorkerDocument.Settings.name)

    async def register(self, worker: Worker) -> None:
        """Adds a worker, alive from now; registering it again changes nothing else."""
        fields = to_bson(worker)
        del fields["_id"], fields["heartbeat_at"]
        with translated():
            await self._workers.update_one(
                {"_id": worker.worker_id},
                {
                    "$set": fields,
                    "$currentDate": {"heartbeat_at": True},
                    "$unset": {"gone_at": True, "lost_from": True},
                },
                upsert=True,
            )

    async def heartbeat(self, worker_id: str) -> None:
        """Notes that a worker is alive; one that was given up is what it was before."""
        is_lost = {"$eq": ["$state", WorkerState.LOST]}
        revived = {
            "heartbeat_at": "$$NOW",
            "state": {"$cond": [is_lost, {"$ifNull": ["$lost_from", WorkerState.ONLINE]}, "$state"]},
            "gone_at": {"$cond": [is_lost, "$$REMOVE", "$gone_at"]},
            "lost_from": "$$REMOVE",
        }
        with translated():
            await self._workers.update_one({"_id": worker_id}, [{"$set": revived}])

    async def set_state(self, worker_id: str, state: WorkerState) -> None:
        gone_at = "$$REMOVE" if state in _PRESENT else "$$NOW"
        with translated():
            await self._workers.update_one(
                {"_id": worker_id},
                [{"$set": {"state": state, "gone_at": gone_at, "lost_from": "$$REMOVE"}}],
            )

    async def present(self) -> list[Worker]:
        """Workers that have not said goodbye and have not been given up."""
        with translated():
            found = await self._workers.find({"state": {"$in": _PRESENT}}).to_list(None)
        return all_from_bson(found, Worker)

    async def recent(self, limit: int) -> list[Worker]:
        """All workers, the latest started first."""
        with translated():
            found = await self._workers.find().sort("started_at", -1).limit(limit).to_list(limit)
        return all_from_bson(found, Worker)

    async def give_up_silent(self, *, silent_seconds: float) -> list[Worker]:
        """Marks workers lost that have not been heard of for so long by MongoDB's clock, and tells which."""
        silent = {"$lt": ["$heartbeat_at", {"$subtract": ["$$NOW", round(silent_seconds * 1000)]}]}
        filter_ = {"state": {"$in": _PRESENT}, "$expr": silent}
        with translated():
            silent_ids = [raw["_id"] async for raw in self._workers.find(filter_, {"_id": 1})]
            if not silent_ids:
                return []
            await self._workers.update_many(
                {**filter_, "_id": {"$in": silent_ids}},
                [{"$set": {"state": WorkerState.LOST, "gone_at": "$$NOW", "lost_from": "$state"}}],
            )
            # One that was heard of again meanwhile is none of them.
            lost = {"_id": {"$in": silent_ids}, "state": WorkerState.LOST}
            found = await self._workers.find(lost).to_list(None)
        return all_from_bson(found, Worker)
