"""`EmbeddedServers`: real mongod and redis-server, killed, moved and looked at."""

import os
import shutil
import signal

import pytest
from pymongo import AsyncMongoClient
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from codefleet.embedded import EmbeddedServers
from codefleet.errors import ConflictError, UnavailableError


async def test_killed_servers_come_back_on_the_same_ports_with_their_data(tmp_path, environ, until_async):
    async with EmbeddedServers(tmp_path, environ=environ) as servers:
        urls = servers.mongo_url, servers.redis_url
        await _insert(servers, 1)
        async with Redis.from_url(servers.redis_url) as redis:
            await redis.set("kept", "yes")
            await redis.save()
        for child in (servers.mongod, servers.redis):
            os.kill(child.pid, signal.SIGKILL)
        await until_async(lambda: servers.mongod.restarts and servers.mongod.ready)
        await until_async(lambda: servers.redis.restarts and servers.redis.ready)
        assert (servers.mongo_url, servers.redis_url) == urls
        assert await _ids(servers) == [1]
        await _insert(servers, 2)
        async with Redis.from_url(servers.redis_url) as redis:
            assert await redis.get("kept") == b"yes"


async def test_a_taken_port_moves_mongod_and_keeps_its_data(tmp_path, environ):
    async with EmbeddedServers(tmp_path, environ=environ) as servers:
        before = servers.mongo_url
        await _insert(servers, 1)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "ports.json", other)
    async with EmbeddedServers(other, environ=environ) as squatter:
        assert squatter.mongo_url == before
        async with EmbeddedServers(tmp_path, environ=environ) as servers:
            assert servers.mongo_url != before
            assert await _ids(servers) == [1]
            await _insert(servers, 2)
            assert await _ids(squatter) == []


async def test_redis_snapshot_is_written_at_the_stop_and_read_at_the_start(tmp_path, environ):
    for expected in (None, b"1"):
        async with EmbeddedServers(tmp_path, environ=environ) as servers, Redis.from_url(servers.redis_url) as redis:
            assert await redis.get("runs") == expected
            await redis.incr("runs")


async def test_redis_asks_for_its_password_and_never_evicts(tmp_path, environ):
    async with EmbeddedServers(tmp_path, environ=environ) as servers:
        port = int(servers.redis_url.rpartition(":")[2].partition("/")[0])
        async with Redis(port=port, retry=Retry(NoBackoff(), retries=0)) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.ping()
        async with Redis.from_url(servers.redis_url) as redis:
            assert await redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert (tmp_path / "redis" / "redis.conf").stat().st_mode & 0o777 == 0o600


async def test_one_directory_serves_one_and_is_free_afterwards(tmp_path, environ):
    first = EmbeddedServers(tmp_path, environ=environ)
    async with first:
        with pytest.raises(ConflictError, match=f"held by pid {os.getpid()}"):
            await EmbeddedServers(tmp_path, environ=environ).start()
    await first.stop()
    async with EmbeddedServers(tmp_path, environ=environ) as servers:
        assert await _ids(servers) == []


async def test_configured_servers_are_used_instead(tmp_path, environ):
    configured = {"CODEFLEET_MONGO_URL": "mongodb://elsewhere", "CODEFLEET_REDIS_URL": "redis://elsewhere"}
    async with EmbeddedServers(tmp_path, environ=environ | configured) as servers:
        assert (servers.mongo_url, servers.redis_url) == tuple(configured.values())
        assert servers.mongod is servers.redis is None


async def test_a_missing_shared_library_is_named_with_its_package_at_once(tmp_path, environ):
    mongod = tmp_path / "mongod"
    mongod.write_text(
        "#!/bin/sh\n"
        "echo 'mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file' >&2\n"
        "exit 127\n",
    )
    servers = EmbeddedServers(tmp_path / "data", environ=environ | {"CODEFLEET_MONGOD_BINARY": str(mongod)})
    with pytest.raises(
        UnavailableError, match=r"mongod cannot start: libcurl.so.4 is missing: apt-get install libcurl4"
    ):
        await servers.start()
    assert servers.redis.pid is None


async def test_a_program_of_another_kind_is_said_to_be_one(tmp_path, environ):
    mongod = tmp_path / "mongod"
    mongod.write_bytes(b"\x7fELF nothing of the kind")
    servers = EmbeddedServers(tmp_path / "data", environ=environ | {"CODEFLEET_MONGOD_BINARY": str(mongod)})
    with pytest.raises(UnavailableError, match=r"mongod cannot start: .*Exec format error"):
        await servers.start()


async def test_urls_before_the_start_are_refused(tmp_path, environ):
    servers = EmbeddedServers(tmp_path, environ=environ)
    with pytest.raises(RuntimeError, match="not been started"):
        _ = servers.mongo_url
    await servers.stop()


async def _insert(servers, number):
    async with AsyncMongoClient(servers.mongo_url, w="majority", journal=True) as client:
        await client.shop.orders.insert_one({"_id": number})


async def _ids(servers):
    async with AsyncMongoClient(servers.mongo_url) as client:
        return [document["_id"] async for document in client.shop.orders.find().sort("_id")]
