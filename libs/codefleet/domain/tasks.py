"""A task as a plain value: what MongoDB stores of it and what every service means by it."""

from datetime import datetime
from typing import Any

import msgspec

from codefleet.domain.outcomes import Usage
from codefleet.domain.priority import DEFAULT
from codefleet.domain.queues import Executor, Queue
from codefleet.domain.states import TERMINAL, State


class Move(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One entry of a task's history.

    Args:
        id: names the write that made the move, so that a writer whose reply was lost can tell if it took effect.
        actor: who caused it (`user:…`, `worker:…`, `scheduler`).
    """

    id: str
    from_: State | None
    to: State
    at: datetime
    cause: str
    actor: str
    attempt: int


class TaskError(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """Why a task or one of its attempts did not succeed, and what the reader can do about it."""

    class_: str
    code: str
    message: str
    advice: str = ""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a task by one worker under one epoch. `log_from`/`log_to` are line numbers of the task's log."""

    number: int
    epoch: int
    worker_id: str
    started_at: datetime
    session_id: str = ""
    ended_at: datetime | None = None
    outcome: str = ""
    error: TaskError | None = None
    exit_code: int | None = None
    usage: Usage = Usage()
    log_from: int | None = None
    log_to: int | None = None


class TaskProgress(msgspec.Struct, frozen=True, kw_only=True):
    percentage: float = 0.0
    current_step: str = ""
    total_steps: int | None = None
    details: dict[str, Any] = msgspec.field(default_factory=dict)


class Task(msgspec.Struct, kw_only=True, rename={"task_id": "_id"}):
    """The whole document.

    Times are UTC, durations seconds. `epoch` counts grants and fences every write of a worker; `due_at` is set while
    the task may not start yet (schedule, back-off); `lease_renewed_at` is MongoDB's own time of the last heartbeat.
    """

    task_id: str
    name: str
    type: str
    executor: Executor
    queue: Queue
    state: State = State.PENDING
    priority: int = DEFAULT
    effective_priority: int = DEFAULT

    prompt: str = ""
    command: str = ""
    args: list[str] = []
    parameters: dict[str, Any] = {}
    work_directory: str = ""

    project_id: str = "default"
    user_id: str
    tags: list[str] = []
    idempotency_key: str | None = None
    fingerprint: str | None = None
    """Of the request that came with the idempotency key."""

    timeout_seconds: float = 3600.0
    max_retries: int = 3
    retry_delay_seconds: float = 60.0
    retry_count: int = 0
    loss_count: int = 0

    scheduled_at: datetime | None = None
    due_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None

    worker_id: str | None = None
    epoch: int = 0
    lease_renewed_at: datetime | None = None
    attempt: int = 0
    attempts: list[Attempt] = []
    session_id: str = ""

    progress: TaskProgress = TaskProgress()
    result: Any = None
    error: TaskError | None = None
    usage: Usage = Usage()
    history: list[Move] = []

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL
