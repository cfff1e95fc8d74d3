"""Runs the Cursor CLI in print mode, one process a run.

Verified against the documented protocol and what users reported of it, by a double: no real Cursor CLI was at hand.
Source: https://cursor.com/docs/cli/headless and https://cursor.com/docs/cli/reference/parameters
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from codefleet.domain.retry import ErrorClass
from codefleet.execution.agent_process import (
    AgentCommand,
    AgentProcess,
    kept_directory,
    private_directories,
    start_agent,
)
from codefleet.execution.drivers import DriverError, RunContext, checked_parameters
from codefleet.execution.supervisor import child_environment
from codefleet.tasktypes.agent import CursorParameters
from services.executor_cursor.events import PROGRAM, CursorOutput

_NAMES = ("cursor-agent", "agent")


class CursorDriver:
    """Starts the Cursor CLI.

    Args:
        binary: the CLI's path or its name on PATH; empty: `cursor-agent` or `agent` from PATH.
        data_dir: keeps the CLI's configuration, from one run to the next.
    """

    def __init__(self, *, binary: str, data_dir: Path) -> None:
        self._names = (binary,) if binary else _NAMES
        self._data_dir = data_dir

    async def start(self, context: RunContext) -> AgentProcess:
        """Starts a run, see `drivers.AgentDriver`."""
        parameters = checked_parameters(context, CursorParameters)
        key = _api_key(context.environment)
        environment = child_environment(
            context.environment,
            (),
            {
                "CURSOR_API_KEY": key,
                "CURSOR_CONFIG_DIR": str(kept_directory(self._data_dir, "cursor")),
                **private_directories(context),
            },
        )
        command = AgentCommand(
            program=PROGRAM,
            argv=(self._found_binary(context.environment), *_arguments(context, parameters)),
            env=environment,
            secrets=(key,),
        )
        return await start_agent(command, CursorOutput(), context)

    def _found_binary(self, environ: Mapping[str, str]) -> str:
        found = filter(None, (shutil.which(name, path=environ.get("PATH")) for name in self._names))
        if binary := next(found, None):
            return binary
        raise DriverError(
            ErrorClass.CONFIGURATION,
            "CURSOR_NOT_FOUND",
            f"The executor has no {PROGRAM} (looked for {' and '.join(self._names)})",
            advice="Install it (https://cursor.com/docs/cli/installation), or set CODEFLEET_CURSOR_BINARY to its path",
        )


def _arguments(context: RunContext, parameters: CursorParameters) -> tuple[str, ...]:
    arguments = ["-p", "--output-format", "stream-json", "--trust", "--workspace", str(context.work_directory)]
    if parameters.force:
        arguments.append("--force")
    if parameters.model is not None:
        arguments += ["--model", parameters.model]
    # Reading the prompt from stdin is not documented. A space before it keeps it from being taken for an option, or,
    # if it is a single word, for one of the CLI's commands.
    return (*arguments, f" {context.prompt}".replace("\0", ""))


def _api_key(environ: Mapping[str, str]) -> str:
    key = environ.get("CURSOR_API_KEY", "")
    if not key:
        raise DriverError(
            ErrorClass.AUTHENTICATION,
            "MISSING_CREDENTIALS",
            "The executor has no credentials for Cursor",
            advice="Set CURSOR_API_KEY in the environment of executor-cursor",
        )
    return key
