"""Waiting for a condition with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Value = TypeVar("Value")


async def eventually(
    probe: Callable[[], Awaitable[Value]],
    *,
    seconds: float = 10.0,
    until: Callable[[Value], bool] = bool,
) -> Value:
    """What `probe` answers once `until` holds of it.

    Raises:
        AssertionError: it never did; tells the last answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = await probe()
        if until(value):
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s; the last answer was {value!r}"
        await asyncio.sleep(0.02)
