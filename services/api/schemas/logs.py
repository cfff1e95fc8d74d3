"""Logs at the API."""

from typing import Annotated

from msgspec import Meta, Struct

from codefleet.storage.logs import LogEntry

_LAST_LINE = 10**18
DEFAULT_LINES = 1000


class LogQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Annotated[int, Meta(ge=-1, le=_LAST_LINE, description="the last line already known")] = -1
    limit: Annotated[int, Meta(ge=1, le=5000, description="default: 1000, for text everything")] | None = None
    follow: Annotated[bool, Meta(description="stream until the task has ended")] = False


class EventsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None: where to resume is said by the Last-Event-ID header."""


class LogPage(Struct, frozen=True, kw_only=True):
    """`next_after` is the `after` of the next page. Line numbers rise but have gaps between attempts."""

    items: list[LogEntry]
    next_after: int
    has_more: bool
