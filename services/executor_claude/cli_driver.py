"""Runs the Claude Code CLI in print mode, one process a run.

Source: https://code.claude.com/docs/en/cli-reference and https://code.claude.com/docs/en/env-vars
"""

import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
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
from codefleet.tasktypes.agent import ClaudeParameters
from services.executor_claude.cli_events import PROGRAM, ClaudeOutput

_CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
_QUIET = {
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
}
_API_RETRIES = "2"
"""The CLI itself would try 10 times, a refused key included, and hold a slot meanwhile."""


class ClaudeCliDriver:
    """Starts the Claude Code CLI.

    Args:
        binary: the CLI's path or its name on PATH; empty: the one bundled with claude-agent-sdk.
        data_dir: keeps the CLI's sessions, from one run to the next.
    """

    def __init__(self, *, binary: str, data_dir: Path) -> None:
        self._binary = binary
        self._data_dir = data_dir

    async def start(self, context: RunContext) -> AgentProcess:
        """Starts a run, see `drivers.AgentDriver`."""
        parameters = checked_parameters(context, ClaudeParameters)
        command = AgentCommand(
            program=PROGRAM,
            argv=(self._found_binary(context.environment), *_arguments(context, parameters)),
            env=self._environment(context, parameters),
            # On stdin a prompt cannot be taken for an option, has no length limit and shows in no process list. The
            # line end before it, which the CLI strips, keeps one that starts with a slash from being a CLI command.
            stdin=f"\n{context.prompt}".encode(errors="replace"),
            secrets=tuple(_credentials(context.environment).values()),
        )
        return await start_agent(command, ClaudeOutput(), context)

    def _found_binary(self, environ: Mapping[str, str]) -> str:
        found = shutil.which(self._binary, path=environ.get("PATH")) if self._binary else _bundled()
        if found is None:
            raise DriverError(
                ErrorClass.CONFIGURATION,
                "CLAUDE_NOT_FOUND",
                f"The executor has no {PROGRAM} ({self._binary or 'claude-agent-sdk is not installed'})",
                advice="pip install 'codefleet[executor-claude]', or set CODEFLEET_CLAUDE_BINARY to the CLI's path",
            )
        return found

    def _environment(self, context: RunContext, parameters: ClaudeParameters) -> dict[str, str]:
        credentials = _credentials(context.environment)
        if not credentials:
            raise DriverError(
                ErrorClass.AUTHENTICATION,
                "MISSING_CREDENTIALS",
                "The executor has no credentials for the Claude API",
                advice="Set ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN) in the environment of executor-claude",
            )
        return child_environment(
            context.environment,
            ("ANTHROPIC_BASE_URL",),
            {
                "CLAUDE_CODE_MAX_RETRIES": context.environment.get("CLAUDE_CODE_MAX_RETRIES", _API_RETRIES),
                "CLAUDE_CONFIG_DIR": str(kept_directory(self._data_dir, "claude")),
                **_QUIET,
                **private_directories(context),
                **credentials,
                **_sandbox(context.environment, parameters),
            },
        )


def _arguments(context: RunContext, parameters: ClaudeParameters) -> tuple[str, ...]:
    arguments = ["-p", "--output-format", "stream-json", "--verbose", "--session-id", context.session_id]
    # A repository's own settings may name hooks, servers and another API.
    arguments += ["--setting-sources", "", "--strict-mcp-config"]
    arguments += ["--permission-mode", parameters.permission_mode]
    if parameters.model is not None:
        arguments += ["--model", parameters.model]
    if parameters.allowed_tools:
        arguments += ["--allowedTools", *parameters.allowed_tools]
    if parameters.max_turns is not None:
        arguments += ["--max-turns", str(parameters.max_turns)]
    if parameters.max_budget_usd is not None:
        arguments += ["--max-budget-usd", f"{parameters.max_budget_usd:f}"]
    return tuple(arguments)


def _sandbox(environ: Mapping[str, str], parameters: ClaudeParameters) -> dict[str, str]:
    """The operators' word, which the CLI wants, that root may go unasked; codefleet does not give it in their place.

    Raises:
        DriverError: it is needed and was not given.
    """
    if parameters.permission_mode != "bypassPermissions" or os.geteuid() != 0:
        return {}
    if environ.get("IS_SANDBOX") != "1":
        raise DriverError(
            ErrorClass.CONFIGURATION,
            "ROOT_WITHOUT_SANDBOX",
            f"As root the {PROGRAM} does not run with bypassPermissions outside a sandbox",
            advice="Run executor-claude as an ordinary user, or, if it runs in a container or the like, set "
            "IS_SANDBOX=1 in its environment",
        )
    return {"IS_SANDBOX": "1"}


def _credentials(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in _CREDENTIALS if environ.get(name)}


def _bundled() -> str | None:
    # Found, not imported: nothing of it is wanted but the binary.
    spec = find_spec("claude_agent_sdk")
    folders = spec.submodule_search_locations if spec else None
    candidates = (Path(folder) / "_bundled" / "claude" for folder in folders or ())
    return next((str(path) for path in candidates if os.access(path, os.X_OK)), None)
