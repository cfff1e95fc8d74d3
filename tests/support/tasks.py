"""Tasks for tests."""

from typing import Any

from codefleet.clock import new_task_id, utc_now
from codefleet.domain.queues import QUEUE_OF, Executor
from codefleet.domain.tasks import Task
from codefleet.queueing.ready_index import entry_of
from codefleet.service import Stores


def make_task(**fields: Any) -> Task:
    """A diagnostic task that any executor takes, unless `fields` say otherwise."""
    now = utc_now()
    executor = fields.pop("executor", Executor.ANY)
    values: dict[str, Any] = {
        "task_id": new_task_id(),
        "name": "test",
        "type": "diagnostic",
        "executor": executor,
        "queue": QUEUE_OF[executor],
        "user_id": "tester",
        "created_at": now,
        "updated_at": now,
        "retry_delay_seconds": 0.1,
    }
    return Task(**(values | fields))


async def put(stores: Stores, **fields: Any) -> Task:
    """Stores a task and makes it ready, as a submit does."""
    task = make_task(**fields)
    await stores.tasks.insert(task)
    await stores.ready.add([entry_of(task)])
    return task
