"""Wall-clock time for people, and time-ordered ids. Leases compare times that MongoDB itself wrote, never these."""

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_lock = threading.Lock()
_last_tick = 0


def utc_now() -> datetime:
    """Now in UTC, cut to whole milliseconds as BSON stores it, so that what was written equals what is read."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def in_seconds(seconds: float) -> datetime:
    return utc_now() + timedelta(seconds=seconds)


def new_task_id() -> str:
    """A version 7 UUID (RFC 9562): ids made later by this process sort later, in the same millisecond too.

    The 12 bits after the version carry the sub-millisecond part of a clock that never repeats a value.
    """
    global _last_tick  # noqa: PLW0603 - one clock for the process is the point
    with _lock:
        # A tick is 1/4096 ms.
        _last_tick = tick = max(time.time_ns() * 4096 // 1_000_000, _last_tick + 1)
    milliseconds, fraction = tick >> 12, tick & 0xFFF
    random_bits = int.from_bytes(os.urandom(8)) >> 2
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random_bits
    return str(UUID(int=value))


def first_id_at(moment: datetime) -> str:
    """A bound between ids: those made before `moment` sort before it, later ones after it."""
    # In whole numbers: a float of this size would fall short of some milliseconds.
    return str(UUID(int=(moment - _UNIX_EPOCH) // timedelta(milliseconds=1) << 80))
