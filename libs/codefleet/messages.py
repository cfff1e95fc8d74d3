"""Every message between services: small, versioned, disposable. Reconciliation makes a lost one good."""

from typing import Literal

import msgspec


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was given to a worker under an epoch; worthless once the task has another.

    It tells what the worker needs to claim the task without reading it first: how often it was attempted, and its type.
    """

    task_id: str
    epoch: int
    attempt: int
    type: str


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """Scheduler → a worker's inbox, as the only argument of the Dramatiq actor `run`."""

    grants: list[Grant]
    version: Literal[1] = 1


class InboxFilled(msgspec.Struct, frozen=True, kw_only=True, tag="inbox_filled"):
    """Scheduler → worker: look into your inbox now."""


class CancelRequested(msgspec.Struct, frozen=True, kw_only=True, tag="cancel_requested"):
    """API → worker: a task of yours is to be stopped."""

    task_id: str


Control = InboxFilled | CancelRequested
"""What a worker's control stream carries."""


class TasksReady(msgspec.Struct, frozen=True, kw_only=True, tag="tasks_ready"):
    """API or executor → scheduler: the ready index or the set of due tasks has grown."""


class SlotFreed(msgspec.Struct, frozen=True, kw_only=True, tag="slot_freed"):
    """Executor → scheduler: a worker has ended a task that it had under this epoch."""

    worker_id: str
    task_id: str
    epoch: int


class WorkersChanged(msgspec.Struct, frozen=True, kw_only=True, tag="workers_changed"):
    """Executor → scheduler: a worker has come, is draining or is going."""


Hint = TasksReady | SlotFreed | WorkersChanged
"""What the scheduler's wake-up stream carries."""


class TaskChanged(msgspec.Struct, frozen=True, kw_only=True, tag="task_changed"):
    """Any service → subscribers: a task has a new state, new progress or new log lines; read them."""

    task_id: str
