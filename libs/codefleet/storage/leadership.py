"""Leadership as a lease in MongoDB: at most one holder at a time, by MongoDB's own clock."""

from pymongo import ReturnDocument

from codefleet.errors import ConflictError
from codefleet.storage.documents import LeadershipDocument
from codefleet.storage.mongo import Mongo, translated


class LeadershipRepository:
    def __init__(self, mongo: Mongo, name: str) -> None:
        self._leaderships = mongo.collection(LeadershipDocument.Settings.name)
        self._name = name

    async def hold(self, holder: str, *, lease_seconds: float) -> int | None:
        """Takes or renews the lease; its epoch if `holder` has it now, None if somebody else does.

        The epoch rises with every change of holder.
        """
        # A missing time sorts before every other, so a leadership that nobody has held yet is free.
        free = {"$or": [{"$eq": ["$holder", holder]}, {"$lt": ["$expires_at", "$$NOW"]}]}
        risen = {"$add": [{"$ifNull": ["$epoch", 0]}, {"$cond": [{"$eq": ["$holder", holder]}, 0, 1]}]}
        expiry = {"$add": ["$$NOW", round(lease_seconds * 1000)]}
        taken = {
            "epoch": {"$cond": [free, risen, "$epoch"]},
            "holder": {"$cond": [free, holder, "$holder"]},
            "expires_at": {"$cond": [free, expiry, "$expires_at"]},
        }
        try:
            with translated():
                raw = await self._leaderships.find_one_and_update(
                    {"_id": self._name},
                    [{"$set": taken}],
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                )
        except ConflictError:  # two made the first entry at once, and the other was first
            return None
        return int(raw["epoch"]) if raw["holder"] == holder else None

    async def is_held(self) -> bool:
        """Whether anybody has the lease now."""
        with translated():
            in_force = {"_id": self._name, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
            return await self._leaderships.find_one(in_force, {"_id": 1}) is not None

    async def release(self, holder: str) -> None:
        """Lets the next holder in at once."""
        with translated():
            await self._leaderships.update_one(
                {"_id": self._name, "holder": holder},
                [{"$set": {"expires_at": {"$subtract": ["$$NOW", 1]}, "holder": ""}}],
            )
