"""The whole of codefleet on one machine: the servers, then the services, each kept running."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codefleet.embedded.children import Child, ChildSpec, all_ready, stop_all
from codefleet.embedded.data_directory import Connection
from codefleet.embedded.logs import StackLog
from codefleet.embedded.ports import LOOPBACK
from codefleet.embedded.processes import Undertaker
from codefleet.embedded.servers import EmbeddedServers
from codefleet.embedded.services import API, EXECUTOR_PREFIX, MONITOR, SERVICES, explain
from codefleet.errors import ConfigurationError

_PREFERRED_PORT = 8080
_LAST_PORT = 65_535
# With the servers' 2.6 s the sum stays below the 10 s in which `up` promises to be gone.
_EXECUTOR_STOP_SECONDS = 5.5
_SERVICE_STOP_SECONDS = 1.5


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """`port=None`: `CODEFLEET_PORT`, else the one used before, else 8080 or a free one; `port=0`: any free one."""

    data_dir: Path = Path(".codefleet")
    port: int | None = None
    scale: Mapping[str, int] = field(default_factory=dict)
    services: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SERVICES)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


class Stack:
    """Starts once, stops once; between the two every child that dies comes back."""

    def __init__(self, options: StackOptions, log: StackLog | None = None) -> None:
        self.options = options
        self.servers = EmbeddedServers(options.data_dir, environ=options.environ, log=log)
        self.children: list[Child] = []
        self._log = log or StackLog(None)
        self._undertaker = Undertaker()

    async def start(self) -> Connection:
        """Returns when every service has said that it is ready, and `connection.json` is written.

        Raises:
            CodefleetError: in one line, with the remedy; nothing is left running then.
        """
        self.servers.hold()
        try:
            # First, so that a taken port is said before anything has started.
            port, monitor_port = await self._claim_ports()
            await self.servers.start()
            return await self._start_services(port, monitor_port)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Executors first, servers last; at most 10 s. May be called twice or without a start."""
        executors = [child for child in self.children if child.spec.name.startswith(EXECUTOR_PREFIX)]
        others = [child for child in self.children if child not in executors]
        await stop_all(executors, _EXECUTOR_STOP_SECONDS)
        await stop_all(others, _SERVICE_STOP_SECONDS)
        self._undertaker.close()
        await self.servers.stop()

    def kill(self) -> None:
        """SIGKILL for everything at once; `stop` then returns soon."""
        for child in self.children:
            child.kill()
        self.servers.kill()

    async def _claim_ports(self) -> tuple[int, int]:
        ports, environ = self.servers.ports, self.options.environ
        wanted = self.options.port if self.options.port is not None else _port(environ, "CODEFLEET_PORT")
        port = await ports.claim(API, wanted=wanted, preferred=_PREFERRED_PORT, shared=True)
        return port, await ports.claim(MONITOR, wanted=_port(environ, "CODEFLEET_MONITOR_PORT"))

    async def _start_services(self, port: int, monitor_port: int) -> Connection:
        data = self.servers.data
        connection = Connection(
            url=f"http://{LOOPBACK}:{port}",
            api_key=data.api_key(),
            mongo_url=self.servers.mongo_url,
            redis_url=self.servers.redis_url,
        )
        common = self._common_environ(connection, port, monitor_port)
        for service, argv in self.options.services.items():
            count = self.options.scale.get(service, 1)
            for number in range(1, count + 1):
                name = service if count == 1 else f"{service}.{number}"
                environ = common | await self._own_environ(service, number, connection)
                spec = ChildSpec(name=name, argv=argv, environ=environ, explain=explain)
                self.children.append(Child(spec, self._log, self._undertaker))
        self.servers.ports.save()
        self._undertaker.start()
        for child in self.children:
            child.start()
        await all_ready(self.children)
        data.write_connection(connection)
        return connection

    def _common_environ(self, connection: Connection, port: int, monitor_port: int) -> dict[str, str]:
        environ = {"CODEFLEET_WORK_ROOTS": _default_work_roots(), "PYTHONUNBUFFERED": "1", **self.options.environ}
        environ |= {
            "CODEFLEET_MONGO_URL": connection.mongo_url,
            "CODEFLEET_REDIS_URL": connection.redis_url,
            "CODEFLEET_DATA_DIR": str(self.servers.data.path),
            "CODEFLEET_PORT": str(port),
            "CODEFLEET_MONITOR_PORT": str(monitor_port),
            "CODEFLEET_LOG_FORMAT": "json",
        }
        return environ

    async def _own_environ(self, service: str, number: int, connection: Connection) -> dict[str, str]:
        if service == API:
            return {"CODEFLEET_BOOTSTRAP_API_KEY": connection.api_key}
        if service == MONITOR and number > 1:
            return {"CODEFLEET_MONITOR_PORT": str(await self.servers.ports.claim(f"{MONITOR}.{number}"))}
        return {}


def _default_work_roots() -> str:
    roots = (Path.cwd(), Path.home(), Path("/home"), Path(tempfile.gettempdir()))
    return os.pathsep.join(dict.fromkeys(str(root) for root in roots))


def _port(environ: Mapping[str, str], variable: str) -> int | None:
    value = environ.get(variable)
    if not value:
        return None
    if not value.isdecimal() or int(value) > _LAST_PORT:
        raise ConfigurationError(f"{variable}: expected a port number, got {value!r}")
    return int(value)
