"""Which agents and models the demo speaks to: real ones where the environment offers them, else stand-ins."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from codefleet_testkit.cursor_double import write_cursor_shim

_MADE_UP_KEY = "made-up-key-for-the-stand-in"
_REAL_CREDENTIALS = frozenset({"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"})
_OWN_SETTINGS_KEPT = frozenset({"CODEFLEET_CLAUDE_BINARY", "CODEFLEET_CURSOR_BINARY"})


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """Who plays.

    Args:
        real: whether a real model answers, for each executor.
        told: the same for people, with what would change it.
        environment: of the services.
    """

    real: Mapping[str, bool]
    told: Mapping[str, str]
    environment: Mapping[str, str]


def choose_cast(environ: Mapping[str, str], directory: Path, model_server_url: str) -> Cast:
    """Decides by the environment; puts the Cursor double into `directory` if it is needed."""
    environment = {
        name: value
        for name, value in environ.items()
        if not name.startswith("CODEFLEET_") or name in _OWN_SETTINGS_KEPT
    }
    real_claude = bool(environ.get("ANTHROPIC_API_KEY")) and not environ.get("ANTHROPIC_BASE_URL")
    real_cursor = bool(environ.get("CURSOR_API_KEY")) and _has_cursor(environ)
    if not real_claude:
        environment = {name: value for name, value in environment.items() if name not in _REAL_CREDENTIALS}
        environment |= {"ANTHROPIC_BASE_URL": model_server_url, "ANTHROPIC_API_KEY": _MADE_UP_KEY}
    if not real_cursor:
        shim = write_cursor_shim(directory)
        environment |= {"CODEFLEET_CURSOR_BINARY": str(shim), "CURSOR_API_KEY": _MADE_UP_KEY}
    return Cast(
        real={"claude": real_claude, "cursor": real_cursor},
        told={
            "Claude Code CLI": _told_claude(real=real_claude),
            "Cursor CLI": _told_cursor(real=real_cursor),
        },
        environment=environment,
    )


def _has_cursor(environ: Mapping[str, str]) -> bool:
    names = (
        [environ["CODEFLEET_CURSOR_BINARY"]] if environ.get("CODEFLEET_CURSOR_BINARY") else ["cursor-agent", "agent"]
    )
    return any(shutil.which(name, path=environ.get("PATH")) for name in names)


def _told_claude(*, real: bool) -> str:
    if real:
        return "the real CLI and the real API, with your ANTHROPIC_API_KEY: this costs money"
    return "the real CLI, its model a stand-in (set ANTHROPIC_API_KEY without ANTHROPIC_BASE_URL for the real one)"


def _told_cursor(*, real: bool) -> str:
    if real:
        return "the real CLI, with your CURSOR_API_KEY: this may cost money"
    return "a double that speaks its protocol (install cursor-agent and set CURSOR_API_KEY for the real one)"
