"""Workers: the executor processes that tasks are granted to."""

from datetime import datetime
from enum import StrEnum

import msgspec


class WorkerState(StrEnum):
    ONLINE = "online"
    DRAINING = "draining"
    """Finishes what it has and is granted nothing more."""
    LOST = "lost"
    GONE = "gone"


class Worker(msgspec.Struct, frozen=True, kw_only=True, rename={"worker_id": "_id"}):
    worker_id: str
    executor: str
    queues: list[str]
    hostname: str
    pid: int
    slots: int
    state: WorkerState
    started_at: datetime
    heartbeat_at: datetime | None = None
