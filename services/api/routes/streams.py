"""What a task says while it runs: its log and its events."""

from litestar import get
from litestar.params import FromPath
from litestar.types import ASGIApp

from services.api.access import visible_task
from services.api.context import ApiRequest, api_of
from services.api.deadline import in_time
from services.api.documentation import documented
from services.api.reading import header, read_query
from services.api.replies import Reply, content, success
from services.api.schemas.logs import DEFAULT_LINES, EventsQuery, LogPage, LogQuery
from services.api.streaming import (
    TEXT,
    event_stream,
    log_events,
    log_text,
    plain_text,
    resume_position,
    task_events,
    text_stream,
)

_RESUME = {"Last-Event-ID": "id of the last event that was seen; the stream goes on after it"}


@get(
    "/tasks/{task_id:str}/logs",
    opt=documented(
        summary="Read or follow a task's log",
        tag="tasks",
        query=LogQuery,
        answer=LogPage,
        media_types={
            "text/event-stream": "with follow=true: events `log` (id: line number), then `end` with the final status",
            "text/plain": "if accepted: the lines alone, all of them unless `limit` is given",
        },
        errors=(404, 422),
        headers=_RESUME,
    ),
)
async def get_logs(request: ApiRequest, task_id: FromPath[str]) -> ASGIApp:
    query = read_query(request, LogQuery)
    resumed = resume_position(request)
    after = query.after if resumed is None else resumed
    api = api_of(request)
    await visible_task(api.stores.tasks, request.user, task_id)
    as_text = "text/plain" in (header(request, b"accept") or "")
    if as_text and (query.follow or query.limit is None):
        api.hub.check_room()
        return text_stream(log_text(api, request, task_id, after, follow=query.follow))
    if query.follow:
        api.hub.check_room()
        return event_stream(log_events(api, request, task_id, after))
    return await _page(request, task_id, after, query.limit or DEFAULT_LINES, as_text=as_text)


async def _page(request: ApiRequest, task_id: str, after: int, limit: int, *, as_text: bool) -> Reply:
    found = await in_time(api_of(request).stores.logs.read(task_id, after=after, limit=limit + 1))
    entries = found[:limit]
    if as_text:
        return content(plain_text(entries), TEXT)
    next_after = entries[-1].line if entries else after
    return success(LogPage(items=entries, next_after=next_after, has_more=len(found) > limit))


@get(
    "/tasks/{task_id:str}/events",
    opt=documented(
        summary="Follow a task's states and progress",
        tag="tasks",
        query=EventsQuery,
        media_types={
            "text/event-stream": "events `state` (id: place in the history), `progress`, `end` with the final status",
        },
        errors=(404, 422),
        headers=_RESUME,
    ),
)
async def get_events(request: ApiRequest, task_id: FromPath[str]) -> ASGIApp:
    read_query(request, EventsQuery)
    after = resume_position(request)
    api = api_of(request)
    await visible_task(api.stores.tasks, request.user, task_id)
    api.hub.check_room()
    return event_stream(task_events(api, request, task_id, -1 if after is None else after))


HANDLERS = [get_logs, get_events]
