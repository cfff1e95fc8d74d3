"""Answers that go on: server-sent events and followed logs.

A stream is never more than a reader of MongoDB with a position: notices only say when to look again, so a stream that
is resumed at its position misses nothing, whatever was lost in between.
Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from litestar.types import Receive, Scope, Send

from codefleet.domain.tasks import Task, TaskProgress
from codefleet.errors import InvalidFieldError, NotFoundError, UnauthenticatedError, UnavailableError
from codefleet.storage.logs import LogEntry
from services.api.access import visible_task
from services.api.context import Api, ApiRequest
from services.api.deadline import in_time
from services.api.hub import Subscription
from services.api.reading import header
from services.api.replies import encode
from services.api.schemas.tasks import move_view

KEEP_ALIVE_SECONDS = 15.0
_LINES = 1000
_POSITION = re.compile(r"[0-9]{1,18}")
_NOTHING_NEW = b""
TEXT = "text/plain; charset=utf-8"
# A log is what a program printed; on a terminal it must not be more than text.
_VISIBLE = {code: 0x2400 + code for code in range(32) if code != ord("\t")} | {0x7F: 0x2421}
_VISIBLE |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


class StreamReply:
    """An answer without an end known beforehand, as an ASGI application; closes `chunks` when the client goes away."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], media_type: str) -> None:
        self._chunks = chunks
        self._media_type = media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the ASGI signature
        headers = [
            (b"content-type", self._media_type.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(client_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def client_gone(receive: Receive) -> None:
    """Returns when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def event_stream(events: AsyncGenerator[bytes, None]) -> StreamReply:
    return StreamReply(_kept_alive(events), "text/event-stream; charset=utf-8")


def text_stream(chunks: AsyncGenerator[bytes, None]) -> StreamReply:
    return StreamReply(_without_pauses(chunks), TEXT)


def resume_position(request: ApiRequest) -> int | None:
    """The Last-Event-ID of a client that resumes; raises InvalidFieldError if it is none of ours."""
    value = header(request, b"last-event-id")
    if value is None:
        return None
    if not _POSITION.fullmatch(value):
        raise InvalidFieldError("Last-Event-ID", "expected the id of an event of this stream")
    return int(value)


async def task_events(api: Api, request: ApiRequest, task_id: str, after: int) -> AsyncGenerator[bytes, None]:
    """Moves after history entry `after`, and progress, until the task has ended."""
    position, progress = after + 1, TaskProgress()
    with api.hub.subscribed(task_id) as subscription:
        async for task in _versions(api, request, task_id, subscription):
            # The end of a task is the last that is told of it, so its last progress goes before its last move.
            before_end = len(task.history) - task.is_terminal
            for index in range(position, before_end):
                yield _state_event(task, index)
            if task.progress != progress:
                progress = task.progress
                yield _event("progress", progress)
            for index in range(max(position, before_end), len(task.history)):
                yield _state_event(task, index)
            position = max(position, len(task.history))
            if task.is_terminal:
                yield _event("end", {"status": task.state})
            yield _NOTHING_NEW


async def log_events(api: Api, request: ApiRequest, task_id: str, after: int) -> AsyncGenerator[bytes, None]:
    """Lines after `after` as events, until the task has ended and every line was sent."""
    with api.hub.subscribed(task_id) as subscription:
        async for task in _versions(api, request, task_id, subscription):
            async for entries in _entries(api, task_id, after):
                after = entries[-1].line
                yield b"".join(_event("log", entry, id_=entry.line) for entry in entries)
            if task.is_terminal:
                yield _event("end", {"status": task.state})
            yield _NOTHING_NEW


async def log_text(
    api: Api,
    request: ApiRequest,
    task_id: str,
    after: int,
    *,
    follow: bool,
) -> AsyncGenerator[bytes, None]:
    """Lines after `after` as text: those there are, or with `follow` until the task has ended."""
    with api.hub.subscribed(task_id) as subscription:
        async for _ in _versions(api, request, task_id, subscription):
            async for entries in _entries(api, task_id, after):
                after = entries[-1].line
                yield plain_text(entries)
            if not follow:
                return
            yield _NOTHING_NEW


def plain_text(entries: list[LogEntry]) -> bytes:
    """One line for each entry, with control characters made visible."""
    return "".join(entry.text.translate(_VISIBLE) + "\n" for entry in entries).encode()


async def _versions(
    api: Api,
    request: ApiRequest,
    task_id: str,
    subscription: Subscription,
) -> AsyncIterator[Task]:
    """The task as it is now, then again whenever it may have changed, the last time when it has ended.

    Ends early when the process closes, when the key is not valid any more, and when the task is gone.
    """
    while not api.closing.is_set():
        try:
            identity = await api.authenticator.identify(request.scope["headers"])
            task = await visible_task(api.stores.tasks, identity, task_id)
        except UnavailableError:
            await subscription.changed()
            continue
        except (UnauthenticatedError, NotFoundError):
            return
        yield task
        if task.is_terminal:
            return
        await subscription.changed()


async def _entries(api: Api, task_id: str, after: int) -> AsyncIterator[list[LogEntry]]:
    while not api.closing.is_set():
        try:
            entries = await in_time(api.stores.logs.read(task_id, after=after, limit=_LINES))
        except UnavailableError:
            await asyncio.sleep(1.0)
            continue
        if not entries:
            return
        yield entries
        after = entries[-1].line


async def _kept_alive(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    last_sent = time.monotonic()
    # A first comment makes proxies pass the headers on.
    yield b": open\n\n"
    async with aclosing(events):
        async for event in events:
            if event:
                yield event
            elif time.monotonic() - last_sent >= KEEP_ALIVE_SECONDS:
                yield b": keep-alive\n\n"
            else:
                continue
            last_sent = time.monotonic()


async def _without_pauses(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk:
                yield chunk


def _state_event(task: Task, index: int) -> bytes:
    move = move_view(task.history[index])
    data = {
        "from": move.from_,
        "to": move.to,
        "at": move.at,
        "cause": move.cause,
        "actor": move.actor,
        "attempt": move.attempt,
        "status": move.to,
    }
    return _event("state", data, id_=index)


def _event(name: str, data: Any, *, id_: int | None = None) -> bytes:
    mark = b"" if id_ is None else b"id: %d\n" % id_
    return b"event: " + name.encode() + b"\n" + mark + b"data: " + encode(data) + b"\n\n"
