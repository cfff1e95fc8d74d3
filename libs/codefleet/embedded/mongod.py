"""mongod as a single-node replica set on loopback, so that transactions and change streams work.

Without authentication: whoever can open a loopback connection on this machine can read and write it.
"""

import asyncio
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from codefleet.embedded.children import ChildSpec, Failure
from codefleet.embedded.ports import LOOPBACK, wait_listening
from codefleet.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from pymongo import AsyncMongoClient

REPLICA_SET = "codefleet"
_POLL_SECONDS = 0.02
_ALREADY_INITIALIZED = 23
_NOT_YET_INITIALIZED = 94
_FLAGS = (
    *("--bind_ip", LOOPBACK, "--nounixsocket", "--quiet", "--replSet", REPLICA_SET),
    *("--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "512"),
    # An empty data directory of 17 MB instead of 301.
    *("--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=16MB)"),
    *("--setParameter", "diagnosticDataCollectionEnabled=false"),
    # A stopping primary waits 15 s for its secondaries by default; there are none.
    *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
)
_PACKAGES = {"libcurl": "libcurl4", "libssl": "libssl3", "libcrypto": "libssl3", "liblzma": "liblzma5"}
_MISSING_LIBRARY = re.compile(r"error while loading shared libraries: ((lib[a-z]+)[^:\s]*)")


def mongo_url(port: int) -> str:
    return f"mongodb://{LOOPBACK}:{port}/?directConnection=true"


def mongod_spec(binary: Path, folder: Path, port: int, environ: Mapping[str, str]) -> ChildSpec:
    """A mongod on `port` with its data in `folder`; ready when it is primary, under whatever port it had before."""

    async def probe(pid: int) -> None:
        await _until_primary(port, pid)

    return ChildSpec(
        name="mongod",
        argv=(str(binary), "--dbpath", str(folder), "--port", str(port), *_FLAGS),
        environ=environ,
        explain=explain,
        probe=probe,
        show_output=False,
    )


def explain(code: int, lines: Sequence[str]) -> Failure:
    """What its exit means, with the remedy where there is one."""
    missing = next((match for line in lines if (match := _MISSING_LIBRARY.search(line))), None)
    if missing:
        package = _PACKAGES.get(missing[2])
        remedy = f"apt-get install {package}" if package else f"install the package that has {missing[1]}"
        return Failure(reason=f"{missing[1]} is missing: {remedy}", final=True)
    if code == -signal.SIGILL:
        reason = "this processor has no AVX, which mongod needs: set CODEFLEET_MONGO_URL to a server elsewhere"
        return Failure(reason=reason, final=True)
    last = next((text for line in reversed(lines) if (text := _error_text(line))), lines[-1] if lines else "no output")
    return Failure(reason=f"exit {code}: {last}")


def _error_text(line: str) -> str | None:
    try:
        entry = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    if not isinstance(entry, dict) or entry.get("s") not in {"E", "F"}:
        return None
    attributes = entry.get("attr")
    detail = attributes.get("error") if isinstance(attributes, dict) else None
    return f"{entry.get('msg')}: {detail}" if detail else str(entry.get("msg"))


async def _until_primary(port: int, pid: int) -> None:
    from pymongo import AsyncMongoClient
    from pymongo.errors import ConnectionFailure, PyMongoError

    while True:
        await wait_listening(port)
        try:
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_url(port), serverSelectionTimeoutMS=1000)
            async with client:
                await _check_pid(client, port, pid)
                return await _become_primary(client, f"{LOOPBACK}:{port}")
        except ConnectionFailure:
            # If it died, its supervisor knows why and cancels this; else it is busy starting.
            await asyncio.sleep(_POLL_SECONDS)
        except PyMongoError as error:
            raise UnavailableError(f"mongod on port {port}: {error}") from error


async def _check_pid(client: "AsyncMongoClient[dict[str, Any]]", port: int, pid: int) -> None:
    status = await client.admin.command("serverStatus", repl=0, metrics=0, wiredTiger=0, locks=0)
    if status["pid"] != pid:
        raise ConflictError(f"port {port} is answered by another mongod (pid {status['pid']}): stop it")


async def _become_primary(client: "AsyncMongoClient[dict[str, Any]]", address: str) -> None:
    while True:
        hello = await client.admin.command("hello")
        if hello.get("isWritablePrimary"):
            return
        # Said both by a node that was never configured and by one whose configuration names another port.
        if hello.get("isreplicaset"):
            await _configure(client, address)
        await asyncio.sleep(_POLL_SECONDS)


async def _configure(client: "AsyncMongoClient[dict[str, Any]]", address: str) -> None:
    from pymongo.errors import OperationFailure

    try:
        config = (await client.admin.command("replSetGetConfig"))["config"]
        if config["members"][0]["host"] != address:
            config["members"][0]["host"] = address
            config["version"] += 1
            await client.admin.command("replSetReconfig", config, force=True)
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        await _initiate(client, address)


async def _initiate(client: "AsyncMongoClient[dict[str, Any]]", address: str) -> None:
    from pymongo.errors import OperationFailure

    try:
        config = {"_id": REPLICA_SET, "members": [{"_id": 0, "host": address}]}
        await client.admin.command("replSetInitiate", config)
    except OperationFailure as error:
        # A starting node reads its configuration a moment after it listens.
        if error.code != _ALREADY_INITIALIZED:
            raise
