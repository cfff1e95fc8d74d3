"""The connection to MongoDB: opened once, closed once, the only module that knows Motor."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog
from beanie import Document, init_beanie
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import errors
from pymongo.write_concern import WriteConcern

from codefleet.errors import ConflictError, UnavailableError

log = structlog.get_logger(__name__)

Raw = dict[str, Any]
"""A document as BSON gives it."""
Collection = AsyncIOMotorCollection

_RETRY_SECONDS = 0.5
_SERVER_SELECTION_MILLISECONDS = 2_000
_SOCKET_MILLISECONDS = 10_000


@contextmanager
def translated() -> Iterator[None]:
    """The seam at which MongoDB's errors become ours.

    Raises:
        ConflictError: a unique index refused the write.
        UnavailableError: MongoDB cannot be reached or cannot take the write now.
    """
    try:
        yield
    except errors.DuplicateKeyError as error:
        raise ConflictError("This already exists") from error
    except (errors.ConnectionFailure, errors.ExecutionTimeout, errors.WriteConcernError, errors.WTimeoutError) as error:
        raise UnavailableError("The database is away; try again shortly") from error
    except errors.BulkWriteError as error:
        failed = [*error.details.get("writeErrors", ()), *error.details.get("writeConcernErrors", ())]
        if any(item.get("code") in _TRANSIENT_CODES for item in failed) or error.details.get("writeConcernErrors"):
            raise UnavailableError("The database cannot take the write now; try again shortly") from error
        raise
    except errors.OperationFailure as error:
        if error.code in _TRANSIENT_CODES or error.has_error_label("RetryableWriteError"):
            raise UnavailableError("The database cannot take the write now; try again shortly") from error
        raise


# Shutting down, stepping down, not writable, out of disk space: each passes or is mended without a change of ours.
_TRANSIENT_CODES = frozenset({91, 189, 10107, 11600, 11602, 13388, 13435, 13436, 14031})


class Mongo:
    """An open database. Every write is acknowledged by a majority and journaled."""

    def __init__(self, client: AsyncIOMotorClient[Raw], database: str) -> None:
        self._client = client
        self.database: AsyncIOMotorDatabase[Raw] = client.get_database(
            database,
            write_concern=WriteConcern(w="majority", j=True),
        )

    def collection(self, name: str) -> Collection[Raw]:
        return self.database[name]

    async def ping(self) -> None:
        """Raises UnavailableError unless MongoDB answers."""
        with translated():
            await self.database.command("ping")

    async def drop(self) -> None:
        """Deletes the whole database."""
        with translated():
            await self._client.drop_database(self.database.name)


@asynccontextmanager
async def open_mongo(url: str, database: str, documents: list[type[Document]]) -> AsyncIterator[Mongo]:
    """Opens the database and makes the indexes that `documents` declare; waits as long as MongoDB does not answer."""
    client: AsyncIOMotorClient[Raw] = AsyncIOMotorClient(
        url,
        tz_aware=True,
        serverSelectionTimeoutMS=_SERVER_SELECTION_MILLISECONDS,
        socketTimeoutMS=_SOCKET_MILLISECONDS,
        maxPoolSize=32,
        appname="codefleet",
    )
    mongo = Mongo(client, database)
    try:
        while not await _is_prepared(mongo, documents):
            await asyncio.sleep(_RETRY_SECONDS)
        yield mongo
    finally:
        client.close()


async def _is_prepared(mongo: Mongo, documents: list[type[Document]]) -> bool:
    try:
        with translated():
            await init_beanie(database=mongo.database, document_models=documents)
    except UnavailableError as error:
        log.warning("waiting for MongoDB", reason=str(error.__cause__))
        return False
    return True
