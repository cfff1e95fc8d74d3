"""Queues at the API."""

from msgspec import Struct


class QueueView(Struct, frozen=True, kw_only=True):
    """One queue now.

    Args:
        waiting: tasks that could start now; null while Redis is away.
        running: tasks that a worker has.
        workers: online workers that serve the queue; a worker may serve several, and its slots count for each.
        oldest_waiting_seconds: how long that task has been able to start which has waited longest, counted from its
            submit, its schedule or the end of its last run; null if none waits.
    """

    name: str
    waiting: int | None
    running: int
    workers: int
    slots: int
    oldest_waiting_seconds: float | None


class QueueList(Struct, frozen=True, kw_only=True):
    """`degraded`: Redis is away, so `waiting` is not known."""

    items: list[QueueView]
    degraded: bool
