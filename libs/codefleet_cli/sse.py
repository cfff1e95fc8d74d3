"""Server-sent events: the parser, without any I/O.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import codecs
import re
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class ServerEvent:
    """`id` is None for an event that carries none of its own."""

    name: str
    data: str
    id: str | None = None


class EventParser:
    """Takes a stream in pieces cut anywhere, even inside a character or a line end."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._partial: list[str] = []
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that `data` completes. An event that the stream's end cuts off is never given."""
        events = []
        for line in self._lines(self._decoder.decode(data)):
            if line:
                self._field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _lines(self, text: str) -> list[str]:
        if not text:
            return []
        if self._after_cr:
            text = text.removeprefix("\n")
        self._after_cr = text.endswith("\r")
        first, *rest = _LINE_END.split(text)
        self._partial.append(first)
        if not rest:
            return []
        whole = "".join(self._partial)
        self._partial = [rest.pop()]
        return [whole, *rest]

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> ServerEvent | None:
        event = None
        # The standard drops an event without data; a bare `event: end` still has to end the stream.
        if self._data or self._name:
            event = ServerEvent(self._name or "message", "\n".join(self._data), self._id)
        self._name, self._data, self._id = "", [], None
        return event
