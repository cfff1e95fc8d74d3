"""Between our structs and BSON's dictionaries."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import structlog

Value = TypeVar("Value")

log = structlog.get_logger(__name__)


def to_bson(value: Any) -> Any:
    """Structs and enums as dictionaries and strings; times stay times."""
    return msgspec.to_builtins(value, builtin_types=(datetime,))


def all_from_bson(raws: Iterable[dict[str, Any]], wanted: type[Value]) -> list[Value]:
    """The structs that `raws` were made from; one that cannot be read is logged and left out, so that it does not hold
    up all others.
    """
    found = []
    for raw in raws:
        try:
            found.append(from_bson(raw, wanted))
        except msgspec.ValidationError as error:
            log.error("document not understood", id=raw.get("_id"), reason=str(error))  # noqa: TRY400 - says it all
    return found


def from_bson(raw: Any, wanted: type[Value]) -> Value:
    """The struct that `raw` was made from; raises msgspec.ValidationError if it was not."""
    return msgspec.convert(raw, wanted)
