"""One event stream of the server, across broken connections and restarts of the server."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from codefleet_cli.client import PREFIX, translated, unwrap
from codefleet_cli.errors import RefusedError, UnexpectedAnswerError, UnreachableError
from codefleet_cli.sse import EventParser, ServerEvent

GIVE_UP_SECONDS = 300.0
_SILENCE_SECONDS = 45.0
"""The server sends a comment every 15 s: three missing ones mean that nobody is there."""
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_OK = 200

Deliver = Callable[[Sequence[ServerEvent]], None]


class Outage:
    """Tells the user once that the connection is lost and once that it is back, however many streams break."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._down: set[object] = set()

    def lost(self, stream: object, reason: str) -> None:
        if not self._down:
            self._notify(f"connection lost ({reason}); trying again, the task goes on meanwhile")
        self._down.add(stream)

    def restored(self, stream: object) -> None:
        if stream in self._down:
            self._down.remove(stream)
            if not self._down:
                self._notify("connected again")


class Retrying:
    """Exponential pauses between attempts to reach the server, until it has been away for too long."""

    def __init__(self) -> None:
        self.succeeded()
        self.progressed()

    def succeeded(self) -> None:
        """The server answered."""
        self._last_answer = time.monotonic()

    def progressed(self) -> None:
        """It sent something of use: the next pause is a short one again."""
        self._pause = _FIRST_PAUSE_SECONDS

    async def pause(self, error: UnreachableError | RefusedError) -> None:
        """Waits before the next attempt; raises `error` if the server has been away for too long."""
        if time.monotonic() - self._last_answer > GIVE_UP_SECONDS:
            raise error
        wait = self._pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        asked = error.retry_after_seconds if isinstance(error, RefusedError) else None
        await asyncio.sleep(max(wait, asked or 0.0))


class EventStream:
    """Events of one path, each once and in order, until the server says `end`.

    Args:
        cursor: the query parameter that also says after which event to begin, if there is one.
        last_id: the id of the last event already seen.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        path: str,
        outage: Outage,
        *,
        params: dict[str, Any] | None = None,
        cursor: str = "",
        last_id: int = -1,
    ) -> None:
        self._client = client
        self._path = PREFIX + path
        self._outage = outage
        self._params = params or {}
        self._cursor = cursor
        self._last_id = last_id

    async def pump(self, deliver: Deliver) -> None:
        """Delivers events, all that one piece of the stream completes at a time, and returns after `end`.

        Raises:
            RefusedError: the server refuses the stream.
            UnreachableError: it has been away for GIVE_UP_SECONDS.
        """
        retrying = Retrying()
        while True:
            try:
                if await self._pump_once(deliver, retrying):
                    return
                error: UnreachableError | RefusedError = UnreachableError("the server closed the stream")
            except UnexpectedAnswerError:
                raise
            except UnreachableError as unreachable:
                error = unreachable
            except RefusedError as refused:
                if not refused.is_temporary:
                    raise
                error = refused
            self._outage.lost(self, error.message)
            await retrying.pause(error)

    async def _pump_once(self, deliver: Deliver, retrying: Retrying) -> bool:
        """Reads one connection to its end; true if that was the end of the stream."""
        async with self._open() as response:
            self._outage.restored(self)
            try:
                return await self._read(response, deliver, retrying)
            finally:
                retrying.succeeded()

    async def _read(self, response: httpx.Response, deliver: Deliver, retrying: Retrying) -> bool:
        parser = EventParser()
        async for piece in response.aiter_bytes():
            events = parser.feed(piece)
            if fresh := [event for event in events if event.name != "end" and self._is_new(event)]:
                retrying.progressed()
                deliver(fresh)
            if any(event.name == "end" for event in events):
                return True
        return False

    def _is_new(self, event: ServerEvent) -> bool:
        """False for what was already delivered; notes the place otherwise."""
        if event.id is None or not event.id.isdecimal():
            return True
        number = int(event.id)
        if number <= self._last_id:
            return False
        self._last_id = number
        return True

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[httpx.Response]:
        params, headers = dict(self._params), {"Accept": "text/event-stream"}
        if self._last_id >= 0:
            headers["Last-Event-ID"] = str(self._last_id)
            if self._cursor:
                params[self._cursor] = self._last_id
        timeout = httpx.Timeout(_SILENCE_SECONDS, connect=5.0)
        with translated(str(self._client.base_url).rstrip("/")):
            request = self._client.stream("GET", self._path, params=params, headers=headers, timeout=timeout)
            async with request as response:
                if response.status_code != _OK:
                    await response.aread()
                    unwrap(response)
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    raise UnexpectedAnswerError(f"{response.url} is not an event stream")
                yield response
