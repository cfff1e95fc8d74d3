"""Priorities: their names, and the score by which the ready index orders tasks."""

import re
from datetime import datetime

from codefleet.errors import InvalidFieldError

LOWEST, DEFAULT, HIGHEST = 1, 5, 10

NAMES: dict[str, int] = {
    "urgent": 10,
    "critical": 10,
    "high": 8,
    "p0": 8,
    "medium": 5,
    "normal": 5,
    "p1": 5,
    "low": 3,
    "background": 1,
}

_NUMBER = re.compile(r"[0-9]{1,3}")

AGEING_SECONDS = 600.0
"""Waiting this long is worth one level of priority, so that nothing starves."""


def parse_priority(value: int | str, *, field: str = "priority") -> int:
    """The level, 1 (lowest) to 10 (highest), that a number or a name means.

    Raises:
        InvalidFieldError: for a number out of range or an unknown name.
    """
    if isinstance(value, str):
        named = NAMES.get(value.strip().lower())
        if named is None and _NUMBER.fullmatch(value.strip()):
            return parse_priority(int(value), field=field)
        if named is None:
            raise InvalidFieldError(field, f"{value!r} is not a priority; expected 1-10 or one of {', '.join(NAMES)}")
        return named
    if not LOWEST <= value <= HIGHEST:
        raise InvalidFieldError(field, f"expected {LOWEST} to {HIGHEST}, got {value}")
    return value


def ready_score(effective_priority: int, waiting_since: datetime) -> float:
    """Where a task stands in the ready index: the lowest score goes first.

    A level of priority is a head start of AGEING_SECONDS. Everything ages at the same rate, so the order of two tasks
    never changes while they wait and the index never has to be rewritten. Tasks with equal scores are ordered by their
    ids, which are time-ordered: first in, first out.
    """
    return round(waiting_since.timestamp() * 1000 - effective_priority * AGEING_SECONDS * 1000)
