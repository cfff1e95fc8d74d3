"""Which server to talk to, and with which key."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codefleet_cli.errors import InvalidInputError, NotConfiguredError

FILE_NAME = "connection.json"
DEFAULT_DIRECTORY = ".codefleet"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where the API is. `origin` says how it was found, for people."""

    url: str
    api_key: str = field(repr=False)
    origin: str

    @property
    def is_local(self) -> bool:
        return urlsplit(self.url).hostname in _LOOPBACK


def find_server(
    *,
    url: str | None = None,
    api_key: str | None = None,
    data_dir: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    directory: Path | None = None,
) -> Server:
    """The first of: `url`, the file in `data_dir`, `CODEFLEET_URL`, the file in `CODEFLEET_DATA_DIR`, and the nearest
    `.codefleet/connection.json` from `directory` (default: the current one) upwards.

    `api_key` comes before `CODEFLEET_API_KEY`, and that before the file's; but a `data_dir` that was asked for brings
    its own key.

    Raises:
        NotConfiguredError: nothing was found.
        InvalidInputError: what was found cannot be used.
    """
    environ_key = environ.get("CODEFLEET_API_KEY", "")
    if url:
        return _server(url, api_key or environ_key, origin="--url")
    if data_dir:
        return _from_file(_in_directory(data_dir), api_key or "")
    if environ.get("CODEFLEET_URL"):
        return _server(environ["CODEFLEET_URL"], api_key or environ_key, origin="CODEFLEET_URL")
    if environ.get("CODEFLEET_DATA_DIR"):
        path = _in_directory(Path(environ["CODEFLEET_DATA_DIR"]))
    else:
        path = _search(directory or Path.cwd())
    return _from_file(path, api_key or environ_key)


def _in_directory(data_dir: Path) -> Path:
    path = data_dir / FILE_NAME
    if not path.is_file():
        raise NotConfiguredError(
            f"there is no {path}", advice=f"start a server with `codefleet up --data-dir {data_dir}`"
        )
    return path


def _search(directory: Path) -> Path:
    candidates = (folder / DEFAULT_DIRECTORY / FILE_NAME for folder in (directory, *directory.parents))
    for path in _existing(candidates):
        return path
    raise NotConfiguredError(
        "no server is known",
        advice="start one with `codefleet up`, or set CODEFLEET_URL and CODEFLEET_API_KEY",
    )


def _existing(paths: Iterator[Path]) -> Iterator[Path]:
    for path in paths:
        try:
            if path.is_file():
                yield path
        except OSError:  # a parent that may not be read holds nothing of ours
            continue


def _from_file(path: Path, api_key: str) -> Server:
    _check_owner(path)
    try:
        content: Any = json.loads(path.read_bytes())
        url, file_key = str(content["url"]), str(content["api_key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} cannot be used ({error!r})", advice="restart `codefleet up`") from error
    return _server(url, api_key or file_key, origin=str(path))


def _check_owner(path: Path) -> None:
    # Whoever puts such a file above a shared directory would otherwise be sent our prompts.
    if hasattr(os, "geteuid") and path.stat().st_uid not in {0, os.geteuid()}:
        raise InvalidInputError(
            f"{path} belongs to another user",
            advice="set CODEFLEET_URL and CODEFLEET_API_KEY if you mean that server",
        )


def _server(url: str, api_key: str, *, origin: str) -> Server:
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInputError(f"{url!r} ({origin}) is not a URL", advice="expected http://HOST:PORT")
    api_key = api_key.strip()
    if not (api_key.isascii() and api_key.isprintable()):
        raise InvalidInputError("the API key has characters that no key has", advice="check CODEFLEET_API_KEY")
    return Server(url=url, api_key=api_key, origin=origin)
