"""Task types: what a task of each kind takes, and what runs it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from codefleet.domain.queues import Executor
from codefleet.errors import InvalidFieldError
from codefleet.tasktypes.agent import ClaudeParameters, CursorParameters
from codefleet.tasktypes.context import TaskContext
from codefleet.tasktypes.diagnostic import DiagnosticParameters, run_diagnostic

TaskFunction = Callable[[TaskContext, Any], Awaitable[Any]]


class TaskType(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of task.

    Args:
        parameters: the schema of `parameters` for each executor that can run the type.
        default_executor: who runs it unless the submitter says otherwise.
        needs_prompt: whether a prompt or a command must be given.
        path_parameters: names of parameters that are files under a work root.
        function: runs it inside the executor's process and returns its result; None: the executor's agent runs it.
    """

    name: str
    description: str
    parameters: Mapping[Executor, type[msgspec.Struct]]
    default_executor: Executor
    needs_prompt: bool = False
    path_parameters: tuple[str, ...] = ()
    function: TaskFunction | None = None


_TYPES = [
    TaskType(
        name="agent",
        description="An AI coding agent works on a prompt in a directory",
        parameters={Executor.CLAUDE: ClaudeParameters, Executor.CURSOR: CursorParameters},
        default_executor=Executor.CLAUDE,
        needs_prompt=True,
    ),
    TaskType(
        name="diagnostic",
        description="Exercises the whole system without an agent and without cost",
        parameters=dict.fromkeys(Executor, DiagnosticParameters),
        default_executor=Executor.ANY,
        path_parameters=("effect_file",),
        function=run_diagnostic,
    ),
]
TASK_TYPES: dict[str, TaskType] = {type_.name: type_ for type_ in _TYPES}
DEFAULT_TYPE = "agent"
"""What a task is when its submitter does not say."""


def find_task_type(name: str) -> TaskType:
    """Raises InvalidFieldError for an unknown name, listing the known ones."""
    try:
        return TASK_TYPES[name]
    except KeyError:
        known = ", ".join(TASK_TYPES)
        raise InvalidFieldError("type", f"{name!r} is not a task type; expected one of {known}") from None


def check_executor(type_: TaskType, name: str | None) -> Executor:
    """The executor that a submitter named, or the type's default.

    Raises:
        InvalidFieldError: there is no such executor, or it does not run this type.
    """
    if name is None:
        return type_.default_executor
    if name not in type_.parameters:
        known = ", ".join(type_.parameters)
        raise InvalidFieldError("executor", f"{name!r} does not run {type_.name!r} tasks; expected one of {known}")
    return Executor(name)


def check_parameters(type_: TaskType, executor: Executor, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as given, once they fit the type's schema.

    Raises:
        InvalidFieldError: naming the parameter at fault.
    """
    try:
        msgspec.convert(parameters, type_.parameters[executor])
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise InvalidFieldError("parameters" + path.rstrip("`"), message) from error
    return dict(parameters)
