"""Short-lived notices over Redis streams: wake-ups, control messages, events.

A stream is capped and may be lost with Redis at any time. Every reader treats a notice as a hint to look at MongoDB
and also looks there on its own now and then, so a lost notice costs time, never truth.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import structlog
from redis.asyncio import Redis

from codefleet.errors import UnavailableError
from codefleet.queueing.redis import REPLY_SECONDS, translated

_MAX_NOTICES = 10_000
_BLOCK_MILLISECONDS = int(REPLY_SECONDS * 1000 / 2)
"""Well below the socket's time-out, which would otherwise end every quiet wait as an error."""
_EXPIRE_SECONDS = 24 * 3600
"""Streams of workers that are no more go away by themselves."""
_RECONNECT_SECONDS = 0.2
_FIELD = b"n"

log = structlog.get_logger(__name__)


def wake_stream(prefix: str) -> str:
    """Hints for the scheduler."""
    return f"{prefix}:wake"


def control_stream(prefix: str, worker_id: str) -> str:
    """Control messages for one worker."""
    return f"{prefix}:control:{worker_id}"


def events_stream(prefix: str) -> str:
    """Changes of all tasks, for whoever watches them."""
    return f"{prefix}:events"


class StreamWriter:
    """Sends notices without ever making its caller wait: what cannot be sent soon is dropped."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: dict[tuple[str, bytes], None] = {}
        self._sending: asyncio.Task[None] | None = None

    def send(self, stream: str, notice: msgspec.Struct) -> None:
        """Sends soon, together with what else is sent meanwhile; equal notices that wait are sent once."""
        if len(self._waiting) < _MAX_NOTICES:
            self._waiting[stream, msgspec.json.encode(notice)] = None
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send_all())

    async def close(self) -> None:
        """Returns when what was sent is on its way."""
        if self._sending is not None:
            await self._sending

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                notices, self._waiting = self._waiting, {}
                try:
                    await self._send(notices)
                except UnavailableError:
                    log.warning("notices dropped", count=len(notices))
        finally:
            self._sending = None

    async def _send(self, notices: dict[tuple[str, bytes], None]) -> None:
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for stream, payload in notices:
                    pipeline.xadd(stream, {_FIELD: payload}, maxlen=_MAX_NOTICES, approximate=True)
                for stream in {stream for stream, _ in notices}:
                    pipeline.expire(stream, _EXPIRE_SECONDS)
                await pipeline.execute()


async def read_stream(redis: Redis, stream: str, kind: Any) -> AsyncIterator[Any]:
    """Every notice that comes from now on, decoded as `kind`; goes on by itself after Redis was away.

    A notice that cannot be decoded is logged and passed over.
    """
    decoder = msgspec.json.Decoder(kind)
    last: bytes | None = None
    while True:
        try:
            with translated():
                last = last or await _newest_id(redis, stream)
                # A stream that was lost starts again at the present time, so the old position stays valid.
                answer = cast("Any", await redis.xread({stream: last}, count=500, block=_BLOCK_MILLISECONDS))
        except UnavailableError:
            await asyncio.sleep(_RECONNECT_SECONDS)
            continue
        for _, entries in _streams(answer):
            for entry_id, fields in entries:
                last = entry_id
                try:
                    notice = decoder.decode(fields[_FIELD])
                except (msgspec.MsgspecError, KeyError) as error:
                    log.warning("notice not understood", stream=stream, error=str(error))
                    continue
                yield notice


async def _newest_id(redis: Redis, stream: str) -> bytes:
    newest = cast("Any", await redis.xrevrange(stream, count=1))
    return cast("bytes", newest[0][0]) if newest else b"0"


def _streams(answer: Any) -> Any:
    return answer.items() if isinstance(answer, dict) else answer or []
