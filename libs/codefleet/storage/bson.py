"""Between our structs and BSON's dictionaries."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import structlog

Value = TypeVar("Value")

DUPLICATE_KEY = 11000
"""MongoDB's code for a write that a unique index refused."""

_MOST_TOLD = 10_000

log = structlog.get_logger(__name__)

_told: set[tuple[str, str]] = set()


def to_bson(value: Any) -> Any:
    """Structs and enums as dictionaries and strings; times stay times."""
    return msgspec.to_builtins(value, builtin_types=(datetime,))


def all_from_bson(raws: Iterable[dict[str, Any]], wanted: type[Value]) -> list[Value]:
    """The structs that `raws` were made from; one that cannot be read is logged, once in the life of the process, and
    left out, so that it does not hold up all others.
    """
    found = []
    for raw in raws:
        try:
            found.append(from_bson(raw, wanted))
        except msgspec.ValidationError as error:
            _tell_once(str(raw.get("_id")), wanted.__name__, str(error))
    return found


def _tell_once(id_: str, wanted: str, reason: str) -> None:
    if (id_, wanted) in _told:
        return
    if len(_told) >= _MOST_TOLD:
        _told.clear()
    _told.add((id_, wanted))
    log.error("document not understood", id=id_, wanted=wanted, reason=reason)


def from_bson(raw: Any, wanted: type[Value]) -> Value:
    """The struct that `raw` was made from; raises msgspec.ValidationError if it was not."""
    return msgspec.convert(raw, wanted)


def projection_of(wanted: type[msgspec.Struct]) -> dict[str, int]:
    """The projection that reads what `wanted` holds and nothing else."""
    return {field.encode_name: 1 for field in msgspec.structs.fields(wanted)}
