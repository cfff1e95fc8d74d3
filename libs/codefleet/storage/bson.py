"""Between our structs and BSON's dictionaries."""

from datetime import datetime
from typing import Any, TypeVar

import msgspec

Value = TypeVar("Value")


def to_bson(value: Any) -> Any:
    """Structs and enums as dictionaries and strings; times stay times."""
    return msgspec.to_builtins(value, builtin_types=(datetime,))


def from_bson(raw: Any, wanted: type[Value]) -> Value:
    """The struct that `raw` was made from; raises msgspec.ValidationError if it was not."""
    return msgspec.convert(raw, wanted)
