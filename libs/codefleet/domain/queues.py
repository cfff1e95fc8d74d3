"""Which queue a task waits in, and which executors serve it."""

from enum import StrEnum


class Executor(StrEnum):
    """Who can run a task. `ANY` leaves the choice to the scheduler."""

    CLAUDE = "claude"
    CURSOR = "cursor"
    ANY = "any"


class Queue(StrEnum):
    DEFAULT = "default"
    CLAUDE_EXECUTION = "claude_execution"
    CURSOR_EXECUTION = "cursor_execution"


QUEUE_OF: dict[Executor, Queue] = {
    Executor.CLAUDE: Queue.CLAUDE_EXECUTION,
    Executor.CURSOR: Queue.CURSOR_EXECUTION,
    Executor.ANY: Queue.DEFAULT,
}


def queues_served(executor: Executor) -> tuple[Queue, ...]:
    """The queues whose tasks an executor takes: its own, and the one that leaves the choice open."""
    return (QUEUE_OF[executor], Queue.DEFAULT)
