"""What a task function may know and do."""

from pathlib import Path
from typing import Any, Protocol


class TaskContext(Protocol):
    """The run of a task as its function sees it.

    Every method first checks that the run may go on, and raises `RunStopped` if it has been cancelled, has timed out
    or has lost its lease. A function lets that exception pass.
    """

    task_id: str
    epoch: int
    attempt: int

    async def log(self, text: str) -> None:
        """Adds a line to the task's log."""
        ...

    async def progress(self, percentage: float, *, step: str = "", details: dict[str, Any] | None = None) -> None:
        """Says how far the run is, 0 to 100."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits, and ends early with RunStopped when the run has to stop."""
        ...

    def check(self) -> None:
        """Raises RunStopped unless the run may still act on the outside world. Call it right before an effect."""
        ...

    def allowed_path(self, path: str) -> Path:
        """The real path of `path`; raises PathNotAllowedError unless it lies under the configured work roots."""
        ...


class RunStopped(Exception):  # noqa: N818 - not a fault: the way a function is asked to end
    """The run must not go on."""
