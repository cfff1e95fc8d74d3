"""Short words for people: durations, ages, amounts; and text of unknown origin made harmless for a terminal."""

import re
from datetime import UTC, datetime

_ESCAPES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f]*(?:\x07|\x1b\\|\x9c)"  # titles, links and the like
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b[ -/]*[0-~]",
)
# Besides control characters: marks that reorder what is read, and halves of surrogate pairs, which cannot be printed.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_THOUSAND, _MILLION = 1_000, 1_000_000


def clean(text: str, *, multiline: bool = False) -> str:
    """`text` without anything that could steer a terminal; line ends become spaces unless `multiline`."""
    text = _UNPRINTABLE.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))
    return text if multiline else text.replace("\n", " ")


def duration(seconds: float | None) -> str:
    """`0.4s`, `12.3s`, `3m07s`, `2h05m`, `3d04h`; `-` when unknown."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{seconds:.1f}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago, in one unit: `5s`, `3m`, `2h`, `4d`."""
    if moment is None:
        return "-"
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, size in (("d", _DAY), ("h", _HOUR), ("m", _MINUTE)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def local_time(moment: datetime | None) -> str:
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def count(number: int) -> str:
    """`950`, `12.3k`, `4.56M`."""
    if number < _THOUSAND:
        return str(number)
    if number < _MILLION:
        return f"{number / _THOUSAND:.1f}k"
    return f"{number / _MILLION:.2f}M"


def money(dollars: float) -> str:
    """US dollars; below a dollar with four places, since a task often costs less than a cent."""
    return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.4f}"


def mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"


def now() -> datetime:
    return datetime.now(UTC)
