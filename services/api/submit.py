"""The first step of a task's way: submit → ready → grant → run → settle.

A submit is answered when MongoDB has the task for good. Redis has no say in it: the ready index and the scheduler's
wake-up follow in the background.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from codefleet.clock import new_task_id, utc_now
from codefleet.domain.identity import Identity
from codefleet.domain.priority import parse_priority
from codefleet.domain.queues import QUEUE_OF
from codefleet.domain.tasks import Task
from codefleet.errors import ConflictError, InvalidFieldError
from codefleet.paths import check_as_seen_here, check_lexically
from codefleet.storage.tasks import initial_move
from codefleet.tasktypes.registry import TaskType, check_executor, check_parameters, find_task_type
from services.api.context import Api
from services.api.deadline import in_time
from services.api.schemas.tasks import TaskSubmission

_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_FURTHEST = timedelta(days=3653)
_MAX_COMMAND_CHARACTERS = 100_000
_MAX_TAG_CHARACTERS = 100
_NAME_CHARACTERS = 80
_fingerprint_encoder = msgspec.json.Encoder(order="deterministic")


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """`replayed`: the task is the one that the same idempotency key had made before."""

    task: Task
    replayed: bool


async def submit(
    api: Api,
    identity: Identity,
    submission: TaskSubmission,
    idempotency_key: str | None = None,
) -> Submitted:
    """Stores a task and sends it on its way.

    Raises:
        InvalidFieldError: naming what is not acceptable; nothing was stored.
        ConflictError: the idempotency key has been used with another body.
        UnavailableError: MongoDB is away; the task may or may not have been stored.
    """
    task = new_task(submission, identity, api.settings.work_roots, idempotency_key)
    try:
        await in_time(api.stores.tasks.insert(task))
    except ConflictError:
        return await _replayed(api, task)
    api.feed.offer(task)
    api.metrics.submitted.inc()
    return Submitted(task=task, replayed=False)


async def _replayed(api: Api, task: Task) -> Submitted:
    if task.idempotency_key is None:
        raise ConflictError("A task with this id already exists")
    earlier = await in_time(api.stores.tasks.by_idempotency_key(task.user_id, task.idempotency_key))
    if earlier is None or earlier.fingerprint != task.fingerprint:
        raise ConflictError("This Idempotency-Key has been used for another request")
    api.metrics.replayed.inc()
    return Submitted(task=earlier, replayed=True)


def new_task(
    submission: TaskSubmission,
    identity: Identity,
    work_roots: tuple[Path, ...],
    idempotency_key: str | None = None,
) -> Task:
    """The task that a submission asks for; raises InvalidFieldError for what is not acceptable."""
    type_ = find_task_type(submission.type)
    executor = check_executor(type_, submission.executor)
    _check_work(type_, submission)
    _check_paths(type_, submission, work_roots)
    check_no_dependencies(submission.depends_on)
    now = utc_now()
    scheduled_at = _schedule(submission.scheduled_at, now)
    priority = parse_priority(submission.priority)
    task = Task(
        task_id=new_task_id(),
        name=_name(submission),
        type=type_.name,
        executor=executor,
        queue=QUEUE_OF[executor],
        priority=priority,
        effective_priority=priority,
        prompt=submission.prompt or "",
        command=submission.command,
        args=submission.args,
        parameters=check_parameters(type_, executor, submission.parameters),
        work_directory=_work_directory(submission.work_directory, work_roots),
        project_id=submission.project_id,
        user_id=identity.user_id,
        tags=_tags(submission.tags),
        idempotency_key=_checked_key(idempotency_key),
        fingerprint=_fingerprint(submission) if idempotency_key is not None else None,
        timeout_seconds=submission.timeout,
        max_retries=submission.max_retries,
        retry_delay_seconds=submission.retry_delay,
        scheduled_at=scheduled_at,
        due_at=scheduled_at if scheduled_at is not None and scheduled_at > now else None,
        created_at=now,
        updated_at=now,
    )
    task.history = [initial_move(task, identity.actor)]
    return task


def check_no_dependencies(depends_on: list[str]) -> None:
    """Raises InvalidFieldError unless there are none."""
    if depends_on:
        raise InvalidFieldError("depends_on", "dependencies are not available in this version; leave it out or empty")


def _check_work(type_: TaskType, submission: TaskSubmission) -> None:
    prompt, command = submission.prompt or "", submission.command
    if type_.needs_prompt and not prompt.strip() and not command.strip():
        raise InvalidFieldError("prompt", f"a task of type {type_.name!r} needs a prompt or a command")
    if len(command) + sum(len(arg) + 1 for arg in submission.args) > _MAX_COMMAND_CHARACTERS:
        raise InvalidFieldError("args", f"command and args together exceed {_MAX_COMMAND_CHARACTERS} characters")


def _check_paths(type_: TaskType, submission: TaskSubmission, work_roots: tuple[Path, ...]) -> None:
    for name in type_.path_parameters:
        path = submission.parameters.get(name)
        if isinstance(path, str) and path:
            check_lexically(path, work_roots, field=f"parameters.{name}")


def _name(submission: TaskSubmission) -> str:
    if submission.name and submission.name.strip():
        return submission.name.strip()
    first_line = ((submission.prompt or "").strip() or submission.command.strip() or submission.type).splitlines()[0]
    printable = "".join(character if character.isprintable() else " " for character in first_line[:_NAME_CHARACTERS])
    return printable + "…" * (len(first_line) > _NAME_CHARACTERS)


def _work_directory(path: str | None, work_roots: tuple[Path, ...]) -> str:
    return str(check_as_seen_here(path, work_roots, field="work_directory")) if path else ""


def _tags(given: list[str] | dict[str, str]) -> list[str]:
    tags = [f"{key}:{value}" for key, value in given.items()] if isinstance(given, dict) else given
    for tag in tags:
        if len(tag) > _MAX_TAG_CHARACTERS:
            raise InvalidFieldError("tags", f"a tag has at most {_MAX_TAG_CHARACTERS} characters as `key:value`")
    return list(dict.fromkeys(tags))


def _schedule(given: datetime | None, now: datetime) -> datetime | None:
    """When the task is to start, in UTC; the past is moved to now, so that it gives no head start in the queue."""
    if given is None:
        return None
    try:
        moment = given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    except OverflowError:
        moment = datetime.max.replace(tzinfo=UTC)
    if abs(moment - now) > _FURTHEST:
        raise InvalidFieldError("scheduled_at", "expected a time within ten years of now")
    return max(moment.replace(microsecond=moment.microsecond // 1000 * 1000), now)


def _checked_key(key: str | None) -> str | None:
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidFieldError("Idempotency-Key", "expected 1 to 255 printable ASCII characters")
    return key


def _fingerprint(submission: TaskSubmission) -> str:
    """What makes two bodies the same request, however they are written."""
    return hashlib.sha256(_fingerprint_encoder.encode(submission)).hexdigest()
