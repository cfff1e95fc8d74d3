"""mongod and redis-server of one data directory, or the ones that the environment names."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from codefleet.embedded.binaries import find_mongod, find_redis_server
from codefleet.embedded.children import Child, all_ready, stop_all
from codefleet.embedded.data_directory import DataDirectory
from codefleet.embedded.logs import StackLog
from codefleet.embedded.mongod import mongo_url, mongod_spec
from codefleet.embedded.ports import PortBook
from codefleet.embedded.redis_server import redis_spec, redis_url

_Value = TypeVar("_Value")
_REDIS_STOP_SECONDS = 0.6
_MONGOD_STOP_SECONDS = 2.0


class EmbeddedServers:
    """Runs both servers, restarts one that dies (same port, same data), and holds the data directory meanwhile.

    `CODEFLEET_MONGO_URL` and `CODEFLEET_REDIS_URL` in `environ` replace either. Start it from a thread that outlives
    it: on Linux the servers die with the thread that started them.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        environ: Mapping[str, str] | None = None,
        log: StackLog | None = None,
    ) -> None:
        self.data = DataDirectory(data_dir)
        self.mongod: Child | None = None
        self.redis: Child | None = None
        self._environ = os.environ if environ is None else environ
        self._log = log or StackLog(None)
        self._ports: PortBook | None = None
        self._mongo_url = self._environ.get("CODEFLEET_MONGO_URL")
        self._redis_url = self._environ.get("CODEFLEET_REDIS_URL")

    @property
    def mongo_url(self) -> str:
        """Raises RuntimeError before the start."""
        return _opened(self._mongo_url)

    @property
    def redis_url(self) -> str:
        """With the password. Raises RuntimeError before the start."""
        return _opened(self._redis_url)

    @property
    def ports(self) -> PortBook:
        """Raises RuntimeError before `hold`."""
        return _opened(self._ports)

    def hold(self) -> None:
        """Takes the data directory, without starting anything yet.

        Raises:
            ConflictError: another process holds it.
            ConfigurationError: it cannot be made or written.
        """
        self.data.lock()
        self._ports = PortBook(self.data.ports_path)

    async def start(self) -> None:
        """Returns when both answer and are ours.

        Raises:
            CodefleetError: in one line, with the remedy; nothing is left running then.
        """
        if self._ports is None:
            self.hold()
        try:
            await self._start(self.ports)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends both in at most 3 s; may be called twice or without a start."""
        await stop_all([self.redis] if self.redis else [], _REDIS_STOP_SECONDS)
        await stop_all([self.mongod] if self.mongod else [], _MONGOD_STOP_SECONDS)
        if self._ports:
            self._ports.close()
            self._ports = None
        self.data.release()

    def kill(self) -> None:
        for child in (self.mongod, self.redis):
            if child:
                child.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _start(self, ports: PortBook) -> None:
        # Both binaries are looked for before either starts: what is missing is said at once.
        mongod = None if self._mongo_url else find_mongod(self._environ)
        redis_server = None if self._redis_url else find_redis_server(self._environ)
        if mongod:
            port = await ports.claim("mongo")
            self._mongo_url = mongo_url(port)
            self.mongod = Child(mongod_spec(mongod, self.data.folder("mongo"), port, self._environ), self._log)
        if redis_server:
            port, password = await ports.claim("redis"), secrets.token_urlsafe(24)
            self._redis_url = redis_url(port, password)
            folder = self.data.folder("redis")
            self.redis = Child(redis_spec(redis_server, folder, port, password, self._environ), self._log)
        ports.save()
        children = [child for child in (self.mongod, self.redis) if child]
        for child in children:
            child.start()
        await all_ready(children)
        for child in children:
            self._log.event("info", "server ready", child=child.spec.name, pid=child.pid)


def _opened(value: _Value | None) -> _Value:
    if value is None:
        raise RuntimeError("the embedded servers have not been started")
    return value
