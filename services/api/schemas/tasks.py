"""Tasks at the API: what clients send and what they see."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from codefleet.domain.outcomes import Usage
from codefleet.domain.states import WAITING
from codefleet.domain.tasks import Attempt, Move, Task, TaskError, TaskProgress
from codefleet.tasktypes.registry import DEFAULT_TYPE

# In Python `$` would also match before a last line feed.
_END = r"$(?!\n)"
_PRINTABLE = r"^[^\x00-\x1f\x7f]*" + _END
_LONGEST_TIMEOUT_SECONDS = 7 * 86_400

_Tag = Annotated[str, Meta(min_length=1, max_length=100, pattern=_PRINTABLE)]
_TagValue = Annotated[str, Meta(max_length=100, pattern=_PRINTABLE)]
_Name = Annotated[str, Meta(max_length=200, pattern=_PRINTABLE, description="default: the prompt's first line")]
_PriorityName = Annotated[str, Meta(max_length=20)]
_Priority = Annotated[int | _PriorityName, Meta(description="1 (lowest) to 10, or a name such as high or low")]
_Text = Annotated[str, Meta(max_length=100_000)]
_ProjectId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}" + _END)]


class TaskSubmission(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a submit."""

    name: _Name | None = None
    type: str = DEFAULT_TYPE
    executor: Annotated[str, Meta(description="claude, cursor or any; default: the type's")] | None = None
    priority: _Priority = 5
    prompt: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None
    command: Annotated[_Text, Meta(description="with `args`, what an agent is asked when there is no prompt")] = ""
    args: Annotated[list[_Text], Meta(max_length=1000)] = []
    parameters: Annotated[dict[str, Any], Meta(description="as the type and the executor define them")] = {}
    work_directory: (
        Annotated[
            str,
            Meta(max_length=4096, description="an absolute path under a work root; default: an empty directory"),
        ]
        | None
    ) = None
    project_id: _ProjectId = "default"
    tags: Annotated[
        Annotated[list[_Tag], Meta(max_length=50)] | Annotated[dict[_Tag, _TagValue], Meta(max_length=50)],
        Meta(description="a list, or a mapping that is stored as `key:value`"),
    ] = []
    timeout: Annotated[float, Meta(gt=0, le=_LONGEST_TIMEOUT_SECONDS, description="seconds")] = 3600.0
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 3
    retry_delay: Annotated[
        float,
        Meta(ge=0, le=_LONGEST_TIMEOUT_SECONDS, description="seconds; base of the exponential back-off"),
    ] = 60.0
    scheduled_at: Annotated[datetime, Meta(description="UTC unless it says otherwise; the past means now")] | None = (
        None
    )
    depends_on: Annotated[list[str], Meta(description="must be empty in this version")] = []


class CancelRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The optional body of a cancel."""

    reason: Annotated[str, Meta(max_length=500, pattern=_PRINTABLE)] = ""


class TaskQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    wait: Annotated[float, Meta(ge=0, le=60, description="seconds to wait for the task to end")] = 0.0


class TaskListQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    status: Annotated[list[str], Meta(description="repeated or separated by commas; every alias is understood")] = []
    project_id: str | None = None
    user_id: Annotated[str, Meta(description="for monitors and admins")] | None = None
    type: str | None = None
    executor: str | None = None
    priority: _PriorityName | None = None
    tag: str | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    offset: Annotated[int, Meta(ge=0, le=10_000)] = 0
    cursor: (
        Annotated[str, Meta(pattern=r"^[0-9a-f-]{36}" + _END, description="`next_cursor` of the page before")] | None
    ) = None


class MoveView(Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One entry of a task's history."""

    from_: str | None
    to: str
    at: datetime
    cause: str
    actor: str
    attempt: int


class AttemptView(Struct, frozen=True, kw_only=True):
    number: int
    worker_id: str
    session_id: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    error: TaskError | None
    exit_code: int | None
    usage: Usage
    log_from: int | None
    log_to: int | None


class TaskSummary(Struct, frozen=True, kw_only=True):
    """A task in a list. Times are UTC, durations seconds; `worker_id` is set while a worker has the task."""

    task_id: str
    name: str
    type: str
    executor: str
    queue: str
    status: str
    priority: int
    effective_priority: int
    prompt: str
    command: str
    args: list[str]
    parameters: dict[str, Any]
    work_directory: str
    project_id: str
    user_id: str
    tags: list[str]
    timeout: float
    max_retries: int
    retry_delay: float
    retry_count: int
    scheduled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration: float | None
    worker_id: str | None
    attempt: int
    progress: TaskProgress
    error: TaskError | None
    usage: Usage


class TaskView(TaskSummary, frozen=True, kw_only=True):
    """A whole task."""

    result: Any
    attempts: list[AttemptView]
    history: list[MoveView]


class TaskPage(Struct, frozen=True, kw_only=True):
    """Newest first. `next_cursor` leads to the page after this one, also while new tasks come in.

    `total` is exact; a list too long to be counted in time is answered with 503.
    """

    items: list[TaskSummary]
    total: int
    limit: int
    offset: int
    has_more: bool
    next_cursor: str | None


def task_summary(task: Task) -> TaskSummary:
    return TaskSummary(**_summary_fields(task))


def task_view(task: Task) -> TaskView:
    return TaskView(
        **_summary_fields(task),
        result=task.result,
        attempts=[_attempt_view(attempt) for attempt in task.attempts],
        history=[move_view(move) for move in task.history],
    )


def move_view(move: Move) -> MoveView:
    return MoveView(
        from_=move.from_,
        to=move.to,
        at=move.at,
        cause=move.cause,
        actor=move.actor,
        attempt=move.attempt,
    )


def _summary_fields(task: Task) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "name": task.name,
        "type": task.type,
        "executor": task.executor,
        "queue": task.queue,
        "status": task.state,
        "priority": task.priority,
        "effective_priority": task.effective_priority,
        "prompt": task.prompt,
        "command": task.command,
        "args": task.args,
        "parameters": task.parameters,
        "work_directory": task.work_directory,
        "project_id": task.project_id,
        "user_id": task.user_id,
        "tags": task.tags,
        "timeout": task.timeout_seconds,
        "max_retries": task.max_retries,
        "retry_delay": task.retry_delay_seconds,
        "retry_count": task.retry_count,
        "scheduled_at": task.scheduled_at,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "started_at": task.started_at,
        "completed_at": task.completed_at,
        "duration": _duration(task),
        "worker_id": None if task.is_terminal or task.state in WAITING else task.worker_id,
        "attempt": task.attempt,
        "progress": task.progress,
        "error": task.error,
        "usage": task.usage,
    }


def _duration(task: Task) -> float | None:
    """From the first start to the end; a running task has none, so that its view changes only when the task does."""
    if task.started_at is None or task.completed_at is None:
        return None
    return (task.completed_at - task.started_at).total_seconds()


def _attempt_view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        number=attempt.number,
        worker_id=attempt.worker_id,
        session_id=attempt.session_id,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        outcome=attempt.outcome,
        error=attempt.error,
        exit_code=attempt.exit_code,
        usage=attempt.usage,
        log_from=attempt.log_from,
        log_to=attempt.log_to,
    )
