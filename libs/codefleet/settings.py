"""Configuration of a process, read once from `CODEFLEET_*` environment variables and validated whole."""

import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from codefleet.errors import ConfigurationError

PREFIX = "CODEFLEET_"


class Secret(str):
    """A string that `repr` masks, and with it the representation of whatever holds it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One field for each `CODEFLEET_<FIELD>` variable. Durations are seconds, sizes are bytes.

    The lease figures decide recovery: a dead worker's leases end between `lease_seconds - heartbeat_seconds` and
    `lease_seconds` after its death, and its tasks are granted anew about a second later.
    """

    mongo_url: Secret
    redis_url: Secret
    mongo_database: str = "codefleet"
    redis_prefix: str = "codefleet"

    host: str = "127.0.0.1"
    port: int = 8080
    monitor_port: int = 9090

    data_dir: Path = Path(".codefleet")
    work_roots: tuple[Path, ...] = ()

    slots: int = 3
    """Tasks an executor process runs at the same time."""
    lease_seconds: float = 8.0
    heartbeat_seconds: float = 2.0
    claim_seconds: float = 4.0
    """How long a grant may stay unclaimed; a lost message costs this much."""
    tick_seconds: float = 0.25
    leader_lease_seconds: float = 4.0
    drain_seconds: float = 5.0
    """How long a stopping executor waits for its agents to die before it leaves them to their guardians."""
    max_log_bytes: int = 64 * 1024 * 1024
    """Cap on the stored log of one run; what exceeds it is counted and marked, not stored."""

    claude_binary: str = ""
    """Path of the Claude Code CLI; empty: the one bundled with claude-agent-sdk."""
    cursor_binary: str = ""
    """Path of the Cursor CLI; empty: `cursor-agent` or `agent` from PATH."""

    log_format: str = "json"
    hostname: str = msgspec.field(default_factory=socket.gethostname)

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name.endswith("_seconds") and not 0 < value < math.inf:
                raise ConfigurationError(f"{PREFIX}{name.upper()}: expected a positive number of seconds, got {value}")
        # A run ends a second before its lease does, and one heartbeat may fail.
        shortest = 2 * self.heartbeat_seconds + 1
        if self.lease_seconds <= shortest:
            raise ConfigurationError(
                f"CODEFLEET_LEASE_SECONDS: expected more than two heartbeats and a second ({shortest:g} s), "
                f"got {self.lease_seconds:g}",
            )
        if self.leader_lease_seconds < 1:
            raise ConfigurationError(
                f"CODEFLEET_LEADER_LEASE_SECONDS: expected at least 1, got {self.leader_lease_seconds:g}",
            )
        if self.slots < 1:
            raise ConfigurationError(f"CODEFLEET_SLOTS: expected at least 1, got {self.slots}")
        if self.log_format not in {"json", "console"}:
            raise ConfigurationError(f"CODEFLEET_LOG_FORMAT: expected json or console, got {self.log_format!r}")


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads the settings of this process.

    Raises:
        ConfigurationError: naming the variable, what was expected and what was got.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        key = PREFIX + field.name.upper()
        raw = environ.get(key)
        if raw is None:
            if field.required:
                raise ConfigurationError(f"{key}: expected a value, got nothing")
            continue
        values[field.name] = _parse(key, raw, field.type)
    return Settings(**values)


def _parse(key: str, raw: str, wanted: Any) -> Any:
    if wanted in {Path, Secret}:
        return wanted(raw)
    if wanted == tuple[Path, ...]:
        return tuple(Path(part) for part in raw.split(os.pathsep) if part)
    try:
        return msgspec.convert(raw, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{key}: {error}, got {raw!r}") from error
