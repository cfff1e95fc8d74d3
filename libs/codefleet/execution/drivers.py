"""What an executor knows about agents: the `AgentDriver` protocol and the events a run emits.

A driver starts a run; a run is iterated for its events and ends with exactly one `Result`. The worker runtime owns
everything else (claim, lease, log store, progress, settle), so a driver never touches a store.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from codefleet.domain.outcomes import Failed, Success, Usage
from codefleet.domain.retry import ErrorClass

Stream = Literal["stdout", "stderr", "agent", "system"]
"""Where a log line came from: the process's own pipes, the agent's parsed speech and tool use, or codefleet."""
Parameters = TypeVar("Parameters", bound=msgspec.Struct)


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a driver may know about the run it starts.

    Args:
        work_directory: exists; the agent's current directory.
        scratch_directory: exists, private to this run, outside the work directory (agent HOME, configuration).
        session_id: chosen by codefleet and stored before the start (a UUID).
        lease_seconds: how long the run may go on unless `AgentRun.renew` is called.
        environment: this process's own environment, from which a driver takes what it names and nothing else.
    """

    task_id: str
    epoch: int
    attempt: int
    prompt: str
    parameters: Mapping[str, Any]
    work_directory: Path
    scratch_directory: Path
    session_id: str
    lease_seconds: float
    environment: Mapping[str, str]

    @property
    def marker(self) -> str:
        """Names this run in the environment of each of its processes, see `supervisor.sweep`."""
        return f"{self.task_id}:{self.epoch}"


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """One line for the task's log, without its line end."""

    stream: Stream
    text: str


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the run is; None where the agent does not say."""

    percentage: float | None = None
    current_step: str = ""
    total_steps: int | None = None
    details: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The agent named the session it works in."""

    session_id: str
    model: str = ""


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What this run has consumed so far, in total (a later report replaces an earlier one)."""

    usage: Usage


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The last event of a run."""

    outcome: Success | Failed


AgentEvent = Log | Progress | Session | UsageReport | Result


class AgentRun(Protocol):
    """A run under way."""

    def events(self) -> AsyncIterator[AgentEvent]:
        """Every event in order, the last one a `Result`; nothing of the run is alive when the iterator has ended."""
        ...

    async def stop(self, *, grace_seconds: float) -> None:
        """Ends the run: asks the agent, then kills its whole process tree after `grace_seconds`.

        Returns when nothing of the run is alive. `events()` still ends with a `Result`. Harmless when repeated.
        """
        ...

    def renew(self, lease_seconds: float) -> None:
        """The run's lease was renewed: it may go on for `lease_seconds` from now."""
        ...


class AgentDriver(Protocol):
    """Starts runs of one kind of agent."""

    async def start(self, context: RunContext) -> AgentRun:
        """Starts a run.

        Raises:
            DriverError: the agent cannot be started at all (no binary, no credentials, a bad parameter).
        """
        ...


class DriverError(Exception):
    """A run could not be started; `outcome` says why, for the settle, see `Failed`."""

    def __init__(self, error_class: ErrorClass, code: str, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.outcome = Failed(error_class=error_class, code=code, message=message, advice=advice)


def checked_parameters(context: RunContext, schema: type[Parameters]) -> Parameters:
    """Raises DriverError if the task's parameters do not fit."""
    try:
        return msgspec.convert(context.parameters, schema)
    except msgspec.ValidationError as error:
        raise DriverError(ErrorClass.VALIDATION, "INVALID_PARAMETERS", str(error)) from error
