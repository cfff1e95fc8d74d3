"""Tasks: submit, list, look at, cancel."""

import asyncio
import hashlib
import time

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from codefleet.domain.identity import Identity
from codefleet.domain.priority import parse_priority
from codefleet.domain.queues import Executor
from codefleet.domain.states import parse_state
from codefleet.domain.tasks import Task
from codefleet.errors import ForbiddenError, InvalidFieldError
from codefleet.storage.tasks import TaskFilter
from codefleet.tasktypes.registry import find_task_type
from services.api.access import visible_task
from services.api.cancel import cancel
from services.api.context import Api, ApiRequest, api_of
from services.api.deadline import in_time
from services.api.documentation import documented
from services.api.examples import SUBMISSIONS
from services.api.hub import REREAD_SECONDS
from services.api.reading import header, read_json, read_query
from services.api.replies import Reply, envelope, success
from services.api.schemas.tasks import (
    CancelRequest,
    TaskListQuery,
    TaskPage,
    TaskQuery,
    TaskSubmission,
    TaskView,
    task_summary,
    task_view,
)
from services.api.security import PREFIX, require_changes
from services.api.streaming import client_gone
from services.api.submit import submit

_submission = msgspec.json.Decoder(TaskSubmission)
_cancel_request = msgspec.json.Decoder(CancelRequest)


@post(
    "/tasks",
    opt=documented(
        summary="Submit a task",
        tag="tasks",
        body=TaskSubmission,
        answer=TaskView,
        status=202,
        errors=(400, 403, 409, 413, 415, 422),
        headers={"Idempotency-Key": "makes a resubmission safe: the same key and body answer with the same task"},
        examples=SUBMISSIONS,
    ),
)
async def submit_task(request: ApiRequest) -> ASGIApp:
    require_changes(request.user)
    submission = await read_json(request, _submission)
    submitted = await submit(api_of(request), request.user, submission, header(request, b"idempotency-key"))
    headers = [(b"location", f"{PREFIX}/tasks/{submitted.task.task_id}".encode())]
    if submitted.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return success(task_view(submitted.task), status=202, headers=headers)


@get(
    "/tasks",
    opt=documented(
        summary="List tasks, newest first", tag="tasks", query=TaskListQuery, answer=TaskPage, errors=(403, 422)
    ),
)
async def list_tasks(request: ApiRequest) -> ASGIApp:
    query = read_query(request, TaskListQuery)
    wanted = _filter(query, request.user)
    tasks = api_of(request).stores.tasks
    found, total = await asyncio.gather(
        in_time(tasks.page(wanted, limit=query.limit + 1, offset=query.offset, before=query.cursor)),
        in_time(tasks.count(wanted)),
    )
    items = found[: query.limit]
    has_more = len(found) > query.limit
    page = TaskPage(
        items=[task_summary(task) for task in items],
        total=total,
        limit=query.limit,
        offset=query.offset,
        has_more=has_more,
        next_cursor=items[-1].task_id if has_more else None,
    )
    return success(page)


@get(
    "/tasks/{task_id:str}",
    opt=documented(
        summary="Look at a task, or wait for its end",
        tag="tasks",
        query=TaskQuery,
        answer=TaskView,
        errors=(304, 404, 422),
        headers={"If-None-Match": "the ETag of an earlier answer: 304 if nothing has changed since"},
    ),
)
async def get_task(request: ApiRequest, task_id: FromPath[str]) -> ASGIApp:
    query = read_query(request, TaskQuery)
    api = api_of(request)
    if query.wait:
        task = await _ended_task(api, request, task_id, query.wait)
    else:
        task = await visible_task(api.stores.tasks, request.user, task_id)
    body = envelope(task_view(task))
    etag = b'"%s"' % hashlib.blake2b(body, digest_size=12).hexdigest().encode()
    headers = [(b"etag", etag), (b"cache-control", b"private, no-cache")]
    known = header(request, b"if-none-match")
    if known is not None and _matches(known, etag.decode()):
        return Reply(b"", status=304, headers=headers)
    return Reply(body, headers=[(b"content-type", b"application/json"), *headers])


@post(
    "/tasks/{task_id:str}/cancel",
    opt=documented(
        summary="Cancel a task",
        tag="tasks",
        body=CancelRequest,
        body_required=False,
        answer=TaskView,
        status=202,
        errors=(400, 403, 404, 409, 413, 415, 422),
        examples={"with a reason": {"reason": "superseded by another task"}},
    ),
)
async def cancel_task(request: ApiRequest, task_id: FromPath[str]) -> ASGIApp:
    require_changes(request.user)
    wanted = await read_json(request, _cancel_request) if await request.body() else CancelRequest()
    return success(task_view(await cancel(api_of(request), request.user, task_id, wanted.reason)), status=202)


@delete(
    "/tasks/{task_id:str}",
    status_code=202,
    opt=documented(
        summary="Cancel a task",
        tag="tasks",
        answer=TaskView,
        status=202,
        errors=(403, 404, 409),
    ),
)
async def delete_task(request: ApiRequest, task_id: FromPath[str]) -> ASGIApp:
    require_changes(request.user)
    return success(task_view(await cancel(api_of(request), request.user, task_id)), status=202)


def _filter(query: TaskListQuery, identity: Identity) -> TaskFilter:
    if not identity.sees_all and query.user_id not in {None, identity.user_id}:
        raise ForbiddenError("Only monitors and admins may list the tasks of others")
    return TaskFilter(
        states=tuple(dict.fromkeys(parse_state(word) for word in query.status)),
        project_id=query.project_id,
        user_id=query.user_id if identity.sees_all else identity.user_id,
        type=None if query.type is None else find_task_type(query.type).name,
        executor=None if query.executor is None else _executor(query.executor),
        priority=None if query.priority is None else parse_priority(query.priority),
        tag=query.tag,
    )


def _executor(name: str) -> Executor:
    try:
        return Executor(name)
    except ValueError:
        known = ", ".join(Executor)
        raise InvalidFieldError("executor", f"{name!r} is not an executor; expected one of {known}") from None


async def _ended_task(api: Api, request: ApiRequest, task_id: str, seconds: float) -> Task:
    """The task once it has ended, or as it is when the time is up, the client is gone or the process closes."""
    deadline = time.monotonic() + seconds
    api.hub.check_room()
    with api.hub.subscribed(task_id) as subscription:
        leaving = asyncio.create_task(client_gone(request.receive))
        leaving.add_done_callback(lambda _: subscription.wake())
        try:
            while True:
                task = await visible_task(api.stores.tasks, request.user, task_id)
                left = deadline - time.monotonic()
                if task.is_terminal or left <= 0 or leaving.done() or api.closing.is_set():
                    return task
                await subscription.changed(seconds=min(left, REREAD_SECONDS))
        finally:
            leaving.cancel()


def _matches(known: str, etag: str) -> bool:
    """If-None-Match of RFC 9110: a list of tags, compared weakly, or `*`."""
    tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
    return etag in tags or "*" in tags


HANDLERS = [submit_task, list_tasks, get_task, cancel_task, delete_task]
