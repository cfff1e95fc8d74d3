"""The register of workers."""

from codefleet.domain.workers import Worker, WorkerState
from codefleet.storage.bson import from_bson, to_bson
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
                {"$set": fields, "$currentDate": {"heartbeat_at": True}},
                upsert=True,
            )

    async def heartbeat(self, worker_id: str) -> None:
        """Notes that a worker is alive; one that was given up is online again."""
        revived = {"$cond": [{"$eq": ["$state", WorkerState.LOST]}, WorkerState.ONLINE, "$state"]}
        with translated():
            await self._workers.update_one(
                {"_id": worker_id},
                [{"$set": {"heartbeat_at": "$$NOW", "state": revived}}],
            )

    async def set_state(self, worker_id: str, state: WorkerState) -> None:
        with translated():
            await self._workers.update_one({"_id": worker_id}, {"$set": {"state": state}})

    async def present(self) -> list[Worker]:
        """Workers that have not said goodbye and have not been given up."""
        with translated():
            found = await self._workers.find({"state": {"$in": _PRESENT}}).to_list(None)
        return [from_bson(raw, Worker) for raw in found]

    async def recent(self, limit: int) -> list[Worker]:
        """All workers, the latest started first."""
        with translated():
            found = await self._workers.find().sort("started_at", -1).limit(limit).to_list(limit)
        return [from_bson(raw, Worker) for raw in found]

    async def give_up_silent(self, *, silent_seconds: float) -> list[Worker]:
        """Marks workers lost that have not been heard of for so long by MongoDB's clock, and tells which."""
        silent = {"$lt": ["$heartbeat_at", {"$subtract": ["$$NOW", round(silent_seconds * 1000)]}]}
        filter_ = {"state": {"$in": _PRESENT}, "$expr": silent}
        with translated():
            found = await self._workers.find(filter_).to_list(None)
            if found:
                ids = [raw["_id"] for raw in found]
                await self._workers.update_many(
                    {**filter_, "_id": {"$in": ids}},
                    {"$set": {"state": WorkerState.LOST}},
                )
        return [from_bson(raw, Worker) for raw in found]
