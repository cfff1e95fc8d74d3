"""redis-server on loopback behind a random password; what it holds can be rebuilt from MongoDB."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from codefleet.embedded.children import ChildSpec, Failure
from codefleet.embedded.data_directory import write_private
from codefleet.embedded.ports import LOOPBACK, wait_listening
from codefleet.errors import ConflictError, UnavailableError

_POLL_SECONDS = 0.02
# A full disk stops snapshots, not the queue: the truth is elsewhere.
_CONFIGURATION = """\
bind {host}
port {port}
requirepass {password}
dir "{folder}"
dbfilename dump.rdb
save 30 1
appendonly no
stop-writes-on-bgsave-error no
maxmemory-policy noeviction
daemonize no
loglevel warning
"""


def redis_url(port: int, password: str) -> str:
    return f"redis://:{password}@{LOOPBACK}:{port}/0"


def redis_spec(binary: Path, folder: Path, port: int, password: str, environ: Mapping[str, str]) -> ChildSpec:
    """redis-server on `port` with its snapshot in `folder`. The password goes through a file: `ps` shows arguments."""
    configuration = folder / "redis.conf"
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    text = _CONFIGURATION.format(host=LOOPBACK, port=port, password=password, folder=quoted)
    write_private(configuration, text.encode())

    async def probe(pid: int) -> None:
        await _until_answering(port, password, pid)

    return ChildSpec(
        name="redis",
        argv=(str(binary), str(configuration)),
        environ=environ,
        explain=explain,
        probe=probe,
        show_output=False,
    )


def explain(code: int, lines: Sequence[str]) -> Failure:
    """What its exit means, with the remedy where there is one."""
    if any("handle RDB format version" in line for line in lines):
        reason = "dump.rdb was written by a newer redis-server: delete it, its content is rebuilt from MongoDB"
        return Failure(reason=reason, final=True)
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    return Failure(reason=f"exit {code}: {last}")


async def _until_answering(port: int, password: str, pid: int) -> None:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, RedisError
    from redis.exceptions import ConnectionError as RedisConnectionError

    while True:
        await wait_listening(port)
        try:
            client = Redis(
                host=LOOPBACK, port=port, password=password, socket_timeout=1.0, retry=Retry(NoBackoff(), retries=0)
            )
            async with client:
                server = await client.info("server")
        except AuthenticationError as error:
            raise ConflictError(f"port {port} is answered by another redis-server: stop it") from error
        except (RedisConnectionError, TimeoutError):
            # Still loading its snapshot, or dead: then the supervisor cancels this.
            await asyncio.sleep(_POLL_SECONDS)
            continue
        except RedisError as error:
            raise UnavailableError(f"redis-server on port {port}: {error}") from error
        if server["process_id"] != pid:
            raise ConflictError(
                f"port {port} is answered by another redis-server (pid {server['process_id']}): stop it"
            )
        return
