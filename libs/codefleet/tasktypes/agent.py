"""Parameters of agent tasks, one schema for each agent."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

_Word = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^-\x00][^\x00]*$")]
"""A value for the agent's command line: not empty, without NUL, and not to be taken for an option."""


class ClaudeParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a task may ask of the Claude Code CLI.

    Args:
        permission_mode: what the agent may do without being asked; `acceptEdits` lets it change files in its work
            directory and run only what `allowed_tools` names.
        allowed_tools: tool rules as the CLI writes them, such as `Bash(pytest *)`.
    """

    model: _Word | None = None
    permission_mode: Literal["default", "acceptEdits", "plan", "dontAsk", "bypassPermissions"] = "acceptEdits"
    allowed_tools: Annotated[list[_Word], Meta(max_length=100)] = []
    max_turns: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_budget_usd: Annotated[float, Meta(gt=0, le=10_000)] | None = None


class CursorParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a task may ask of the Cursor CLI.

    Args:
        force: let the agent run commands and change files without asking; print mode cannot ask, so without it the
            CLI rejects what would need a question.
    """

    model: _Word | None = None
    force: bool = True
