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
        free = {"$or": [{"$eq": ["$holder", holder]}, {"$lt": ["$expires_at", "$$NOW"]}]}
        changed = {"$cond": [{"$eq": ["$holder", holder]}, "$epoch", {"$add": ["$epoch", 1]}]}
        try:
            with translated():
                raw = await self._leaderships.find_one_and_update(
                    {"_id": self._name, "$expr": free},
                    [
                        {
                            "$set": {
                                "epoch": {"$ifNull": [changed, 1]},
                                "holder": holder,
                                "expires_at": {"$add": ["$$NOW", round(lease_seconds * 1000)]},
                            },
                        },
                    ],
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                )
        except ConflictError:  # the upsert met a lease in force
            return None
        return int(raw["epoch"])

    async def release(self, holder: str) -> None:
        """Lets the next holder in at once."""
        with translated():
            await self._leaderships.update_one(
                {"_id": self._name, "holder": holder},
                [{"$set": {"expires_at": {"$subtract": ["$$NOW", 1]}, "holder": ""}}],
            )
