"""The connection to Redis, and the seam at which its errors become ours."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from codefleet.errors import UnavailableError

_MAX_CONNECTIONS = 32
CONNECT_SECONDS = 1.0
REPLY_SECONDS = 2.0
"""A Redis that hangs is treated as away after this long; nothing in Redis is worth waiting longer for."""


@contextmanager
def translated() -> Iterator[None]:
    """Raises UnavailableError where redis-py says that Redis is away, loading, full or read-only.

    It also delivers a cancellation that got lost on the way: redis-py sends with `asyncio.wait_for`, which before
    Python 3.12 swallows one that arrives as the sending ends, and a loop over Redis would then go on for ever.
    """
    try:
        yield
    except (exceptions.RedisError, OSError) as error:
        raise UnavailableError("Redis is away; try again shortly") from error
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator["Redis"]:
    """A client whose calls fail soon rather than wait: callers go on without Redis and reconcile later."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_MAX_CONNECTIONS,
        timeout=REPLY_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=REPLY_SECONDS,
        retry=Retry(NoBackoff(), 1),
        health_check_interval=15,
    )
    client = Redis(connection_pool=pool)
    try:
        yield client
    finally:
        await client.aclose()
        await pool.aclose()
