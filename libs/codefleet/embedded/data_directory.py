"""One stack's data directory: who holds it, its ports, and the connection file that clients read."""

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

from codefleet.domain.api_key import new_api_key, parts_of
from codefleet.errors import ConfigurationError, ConflictError


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a running stack: `DIR/connection.json`."""

    url: str
    api_key: str
    mongo_url: str
    redis_url: str

    def __repr__(self) -> str:
        return f"Connection(url={self.url!r}, …)"


class DataDirectory:
    """`path` is made when missing, for its owner only; one process at a time holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    @property
    def connection_path(self) -> Path:
        return self.path / "connection.json"

    @property
    def ports_path(self) -> Path:
        return self.path / "ports.json"

    def lock(self) -> None:
        """Takes the directory for this process; the system gives it back when the process ends, however it ends.

        Raises:
            ConflictError: another process holds it; the message names its pid.
            ConfigurationError: the directory cannot be made or written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"data directory {self.path}: {error.strerror}: choose another --data-dir"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConflictError(
                f"data directory {self.path} is held by pid {holder}: stop that one, or choose another --data-dir",
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        self._lock = descriptor

    def release(self) -> None:
        """Gives the directory back; harmless when not held. The lock file stays: removing it would race."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def api_key(self) -> str:
        """The administrator's key: the one clients already have, else a new one."""
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            known = msgspec.json.decode(self.connection_path.read_bytes(), type=Connection).api_key
            if parts_of(known):
                return known
        return new_api_key()

    def write_connection(self, connection: Connection) -> None:
        """Replaces the file at once: a reader sees the old one or the new one, and only the owner sees either."""
        content = msgspec.json.format(msgspec.json.encode(connection), indent=2) + b"\n"
        write_private(self.connection_path, content)


def write_private(path: Path, content: bytes) -> None:
    """Writes `content` atomically, readable and writable by the owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
