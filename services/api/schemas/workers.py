"""Workers at the API."""

from datetime import datetime

from msgspec import Struct


class WorkerView(Struct, frozen=True, kw_only=True):
    """An executor process; `running` is how many tasks it holds a lease on."""

    id: str
    executor: str
    state: str
    slots: int
    running: int
    hostname: str
    pid: int
    started_at: datetime
    heartbeat_at: datetime | None


class WorkerList(Struct, frozen=True, kw_only=True):
    items: list[WorkerView]
