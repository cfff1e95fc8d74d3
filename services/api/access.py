"""Which tasks an identity may see."""

import re

from codefleet.domain.identity import Identity
from codefleet.domain.tasks import Task
from codefleet.errors import NotFoundError
from codefleet.storage.tasks import TaskRepository
from services.api.deadline import in_time

_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def visible_task(tasks: TaskRepository, identity: Identity, task_id: str) -> Task:
    """The task, if `identity` may see it.

    Raises:
        NotFoundError: there is no such task, or it belongs to somebody else; which of the two is not told.
    """
    task = await in_time(tasks.get(task_id)) if _TASK_ID.fullmatch(task_id) else None
    if task is None or not (identity.sees_all or task.user_id == identity.user_id):
        raise NotFoundError("There is no such task")
    return task
