"""How long a request waits for the database."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from codefleet.errors import UnavailableError

Value = TypeVar("Value")
DATABASE_SECONDS = 3.0
"""A hanging database is treated as away after this long, well before its sockets give up."""


async def in_time(answer: Awaitable[Value]) -> Value:
    """What the database answers.

    Raises:
        UnavailableError: it is away, or it did not answer within DATABASE_SECONDS.
    """
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            return await answer
    except TimeoutError:
        raise UnavailableError("The database does not answer; try again shortly") from None
