"""Loopback ports of one data directory: remembered between runs, held while a stack runs."""

import asyncio
import contextlib
import errno
import random
import socket
from pathlib import Path

import msgspec

from codefleet.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
# Below Linux's ephemeral range (32768…): no outgoing connection takes a port while its server restarts.
_CANDIDATES = range(20_000, 32_000)
_RELEASE_SECONDS = 1.0
_POLL_SECONDS = 0.02


class PortBook:
    """Claims ports by name and keeps them in `path`.

    A claimed port is held by a bound socket that never listens: other stacks see it taken even while its server is
    being restarted, and the server itself can bind beside it with SO_REUSEADDR (or SO_REUSEPORT when `shared`). Only a
    port that is asked for by number (wanted, remembered) and not shared can be claimed twice before its server listens.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._holders: list[socket.socket] = []

    async def claim(self, name: str, *, wanted: int | None = None, preferred: int = 0, shared: bool = False) -> int:
        """A port for `name`: `wanted` or none; without it the remembered one, `preferred`, or any free one.

        `wanted=0` asks for any free port. `shared`: several processes will listen on it with SO_REUSEPORT.

        Raises:
            ConfigurationError: `wanted` is in use.
        """
        holder = await self._pick(name, wanted, preferred)
        self._holders.append(holder)
        _open_to_its_server(holder, shared=shared)
        port: int = holder.getsockname()[1]
        self._known[name] = port
        return port

    def save(self) -> None:
        self._path.write_bytes(msgspec.json.encode(self._known) + b"\n")

    def close(self) -> None:
        while self._holders:
            self._holders.pop().close()

    async def _pick(self, name: str, wanted: int | None, preferred: int) -> socket.socket:
        if wanted:
            holder = await _bind_when_released(wanted)
            if holder is None:
                raise ConfigurationError(f"port {wanted} is in use: stop what listens there, or choose another")
            return holder
        if wanted is None:
            remembered = self._known.get(name)
            holder = await _bind_when_released(remembered) if remembered else None
            holder = holder or (_bind(preferred) if preferred else None)
            if holder:
                return holder
        return _bind_any()


async def wait_listening(port: int) -> None:
    """Returns when something accepts connections on the loopback port; the caller sets the deadline."""
    while True:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            await asyncio.sleep(_POLL_SECONDS)
            continue
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return


async def _bind_when_released(port: int) -> socket.socket | None:
    # The processes of a killed `up` die with it, but a moment after it.
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _RELEASE_SECONDS
    while (holder := _bind(port)) is None and loop.time() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
    return holder


def _bind_any() -> socket.socket:
    for port in random.sample(_CANDIDATES, 200):
        holder = _bind(port)
        if holder:
            return holder
    raise ConfigurationError(f"no free port between {_CANDIDATES.start} and {_CANDIDATES.stop} on {LOOPBACK}")


def _bind(port: int) -> socket.socket | None:
    # With SO_REUSEADDR second, because it passes over closed connections still in TIME_WAIT.
    for reuse in (0, 1):
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        try:
            holder.bind((LOOPBACK, port))
        except OSError as error:
            holder.close()
            if error.errno == errno.EACCES:
                raise ConfigurationError(f"port {port} needs privileges: choose one above 1023") from error
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError(f"port {port} cannot be used: {error.strerror}") from error
        else:
            return holder
    return None


def _open_to_its_server(holder: socket.socket, *, shared: bool) -> None:
    # A shared port is closed to plain SO_REUSEADDR, by which another stack would claim it before anyone listens.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(not shared))
    if shared:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _read(path: Path) -> dict[str, int]:
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    return {}
