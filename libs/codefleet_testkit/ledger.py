"""What the stand-in remembers: the requests it was sent, and how often each fault has happened."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from codefleet_testkit.directives import Fault
from codefleet_testkit.messages_api import MessagesRequest
from codefleet_testkit.scenarios import Position

_SECRET_HEADERS = ("x-api-key", "authorization")
_SHOWN_CHARACTERS = 4
_SESSION_HEADER = "x-claude-code-session-id"


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it arrived; of a key only the last characters are kept. Header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any = None


class Ledger:
    """The state of one server."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self._tries: Counter[str] = Counter()

    def record(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Keeps a request for `requests`."""
        kept = {name.lower(): _masked(name, value) for name, value in headers.items()}
        self.requests.append(RecordedRequest(method=method, path=path, headers=kept, body=_decoded(body)))

    def due(self, request: MessagesRequest, headers: Mapping[str, str], position: Position) -> list[Fault]:
        """The faults of the coming turn that happen now; each counts as one more try."""
        session = headers.get(_SESSION_HEADER, str(request.metadata.get("user_id", "")))
        happening: list[Fault] = []
        for index, fault in enumerate(position.turn.before):
            if not isinstance(fault, Fault):
                continue
            scope = session if fault.per == "session" else ""
            key = hashlib.sha256(f"{scope}|{position.number}|{index}|{position.program.prompt}".encode()).hexdigest()
            self._tries[key] += 1
            if fault.times is None or self._tries[key] <= fault.times:
                happening.append(fault)
        return happening


def _masked(name: str, value: str) -> str:
    return f"***{value[-_SHOWN_CHARACTERS:]}" if name.lower() in _SECRET_HEADERS else value


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode(errors="replace")
