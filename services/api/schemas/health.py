"""Health at the API."""

from typing import Literal

from msgspec import Struct

Status = Literal["ok", "degraded", "down"]


class Check(Struct, frozen=True, kw_only=True):
    """One thing that codefleet needs; `reason` and `advice` are empty while it is ok."""

    status: Status
    reason: str = ""
    advice: str = ""


class Health(Struct, frozen=True, kw_only=True):
    """`status` is the worst that matters: a store that is down, or else anything that is not ok."""

    status: Status
    version: str
    uptime_seconds: float
    workers_online: int
    checks: dict[str, Check]


class Probe(Struct, frozen=True, kw_only=True):
    status: str
