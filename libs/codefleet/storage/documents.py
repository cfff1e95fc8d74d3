"""The collections: their names, their indexes and, where documents are not hot, their fields.

A task's fields are `codefleet.domain.tasks.Task`: hot paths read and write it as raw BSON, so Beanie keeps its
collection and indexes and does not list the fields a second time.
"""

from datetime import datetime
from typing import ClassVar

from beanie import Document
from pydantic import ConfigDict
from pymongo import ASCENDING, DESCENDING, IndexModel

from codefleet.domain.states import WAITING

STATE_INDEX = "state_1__id_-1"
WAITING_INDEX = "waiting"

_KEPT_SECONDS = 7 * 24 * 3600
"""How long a worker that is gone, or was given up, can still be looked at."""


class TaskDocument(Document):
    model_config = ConfigDict(extra="allow")

    id: str  # type: ignore[assignment]

    class Settings:
        name = "tasks"
        indexes: ClassVar = [
            # Lists: newest first, within a state, a project, an owner or a tag.
            IndexModel([("state", ASCENDING), ("_id", DESCENDING)], name=STATE_INDEX),
            IndexModel([("project_id", ASCENDING), ("_id", DESCENDING)]),
            IndexModel([("user_id", ASCENDING), ("_id", DESCENDING)]),
            IndexModel([("tags", ASCENDING), ("_id", DESCENDING)]),
            # What waits (due, ready, and the oldest of a queue are stretches of it) and whose lease has ended: small
            # whatever the collection's size.
            IndexModel(
                [("queue", ASCENDING), ("due_at", ASCENDING), ("_id", ASCENDING)],
                name=WAITING_INDEX,
                partialFilterExpression={"state": {"$in": sorted(WAITING)}},
            ),
            IndexModel(
                [("lease_renewed_at", ASCENDING)],
                partialFilterExpression={"lease_renewed_at": {"$type": "date"}},
            ),
            IndexModel(
                [("user_id", ASCENDING), ("idempotency_key", ASCENDING)],
                unique=True,
                partialFilterExpression={"idempotency_key": {"$type": "string"}},
            ),
        ]


class LogChunkDocument(Document):
    """Consecutive lines of one task's log, written by one run."""

    model_config = ConfigDict(extra="allow")

    id: str  # type: ignore[assignment]

    class Settings:
        name = "log_chunks"
        indexes: ClassVar = [
            IndexModel([("task_id", ASCENDING), ("last_line", ASCENDING)]),
        ]


class WorkerDocument(Document):
    """An executor process. A restarted process is a new worker."""

    id: str  # type: ignore[assignment]
    executor: str
    queues: list[str]
    hostname: str
    pid: int
    slots: int
    state: str
    started_at: datetime
    heartbeat_at: datetime | None = None
    gone_at: datetime | None = None
    """Since when it is gone or lost; the document goes some time after, unless the worker comes back."""
    lost_from: str | None = None
    """The state in which a lost worker was given up, and to which it comes back."""

    class Settings:
        name = "workers"
        indexes: ClassVar = [
            IndexModel([("state", ASCENDING)]),
            IndexModel([("gone_at", ASCENDING)], expireAfterSeconds=_KEPT_SECONDS),
        ]


class ApiKeyDocument(Document):
    """An API key: `id` is its public prefix, of the secret only a hash is kept."""

    id: str  # type: ignore[assignment]
    secret_hash: str
    user_id: str
    role: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    class Settings:
        name = "api_keys"


class LeadershipDocument(Document):
    """Who leads a service of which only one process may act."""

    model_config = ConfigDict(extra="allow")

    id: str  # type: ignore[assignment]

    class Settings:
        name = "leaderships"


DOCUMENTS: list[type[Document]] = [
    TaskDocument,
    LogChunkDocument,
    WorkerDocument,
    ApiKeyDocument,
    LeadershipDocument,
]
