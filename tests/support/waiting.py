"""Waiting for a condition with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

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


async def finished(tasks: Sequence["asyncio.Task[Any]"], *, seconds: float = 10.0) -> None:
    """Waits for tasks that have been told to end; raises what they raised.

    Raises:
        AssertionError: one did not end; tells where every task of the loop stands.
    """
    _, left = await asyncio.wait(tasks, timeout=seconds)
    assert not left, "\n".join(_where(task) for task in asyncio.all_tasks())
    await asyncio.gather(*tasks)


def _where(task: "asyncio.Task[Any]") -> str:
    """The chain of coroutines that a task waits in."""
    lines, waiting = [task.get_name()], task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        lines.append(f"  {frame.f_code.co_qualname}:{frame.f_lineno}" if frame else f"  {waiting!r}"[:200])
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return "\n".join(lines)
