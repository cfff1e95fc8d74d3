"""Follows a task to its end: its log and its moves, then the task itself."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import httpx
import msgspec

from codefleet_cli.client import LONG_POLL_SECONDS, PREFIX, client_options, translated, unwrap
from codefleet_cli.connection import Server
from codefleet_cli.errors import CommandError, RefusedError, UnexpectedAnswerError, UnreachableError
from codefleet_cli.model import OUTCOMES
from codefleet_cli.sse import ServerEvent
from codefleet_cli.stream import EventStream, Outage, Retrying

_SHORTEST_POLL_SECONDS = 0.25


class Display(Protocol):
    """Where what happens to a task is shown; each argument is the API's own data."""

    def log(self, entries: Sequence[dict[str, Any]]) -> None: ...
    def state(self, move: dict[str, Any]) -> None: ...
    def progress(self, progress: dict[str, Any]) -> None: ...
    def notice(self, text: str) -> None: ...


def follow(server: Server, task_id: str, display: Display, *, after: int = -1) -> dict[str, Any]:
    """Shows the log from the line after `after`, and every move, until the task is finished. Returns the task.

    Raises:
        CommandError: the server refuses, or has been away for too long.
        KeyboardInterrupt: the user does not want to wait; the task goes on.
    """
    return asyncio.run(_follow(server, task_id, display, after))


async def _follow(server: Server, task_id: str, display: Display, after: int) -> dict[str, Any]:
    async with httpx.AsyncClient(**client_options(server)) as client:
        outage = Outage(display.notice)
        path = f"/tasks/{task_id}"
        logs = EventStream(client, f"{path}/logs", outage, params={"follow": "true"}, cursor="after", last_id=after)
        moves = EventStream(client, f"{path}/events", outage)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(logs.pump(_log_sink(display)))
                group.create_task(moves.pump(_move_sink(display)))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return await _finished(client, PREFIX + path, outage)


def _log_sink(display: Display) -> Callable[[Sequence[ServerEvent]], None]:
    def deliver(events: Sequence[ServerEvent]) -> None:
        if entries := [_data(event) for event in events if event.name == "log"]:
            display.log(entries)

    return deliver


def _move_sink(display: Display) -> Callable[[Sequence[ServerEvent]], None]:
    def deliver(events: Sequence[ServerEvent]) -> None:
        for event in events:
            if event.name == "state":
                display.state(_data(event))
            elif event.name == "progress":
                display.progress(_data(event))

    return deliver


def _data(event: ServerEvent) -> dict[str, Any]:
    try:
        return msgspec.json.decode(event.data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UnexpectedAnswerError(f"an event {event.name!r} of the server is not a JSON object") from error


async def _finished(client: httpx.AsyncClient, path: str, outage: Outage) -> dict[str, Any]:
    """The task once it is finished, also if the server is restarted just then."""
    retrying = Retrying()
    while True:
        began = time.monotonic()
        try:
            with translated(str(client.base_url).rstrip("/")):
                task = unwrap(await client.get(path, params={"wait": LONG_POLL_SECONDS}))
        except (UnreachableError, RefusedError) as error:
            if not _is_temporary(error):
                raise
            outage.lost(path, error.message)
            await retrying.pause(error)
            continue
        retrying.succeeded()
        outage.restored(path)
        if task["status"] in OUTCOMES:
            return dict(task)
        await asyncio.sleep(max(0.0, began + _SHORTEST_POLL_SECONDS - time.monotonic()))


def _is_temporary(error: CommandError) -> bool:
    if isinstance(error, RefusedError):
        return error.is_temporary
    return not isinstance(error, UnexpectedAnswerError)
