"""The API over real HTTP, on stores of the test's own."""

import functools
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from codefleet.domain.api_key import new_api_key
from codefleet.domain.identity import Identity, Role
from codefleet.http_server import listening
from codefleet.service import Stores
from codefleet.settings import Settings
from services.api.app import create_app
from services.api.context import Api
from services.api.lifespan import close_streams, open_api

ROLES = {"admin": Role.ADMIN, "monitor": Role.MONITOR, "alice": Role.SUBMITTER, "bob": Role.SUBMITTER}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def served(settings: Settings, stores: Stores) -> AsyncIterator[tuple[Api, str]]:
    """A running API and its URL."""
    port = free_port()
    async with open_api(settings, stores) as opened:
        closing = functools.partial(close_streams, opened)
        async with listening(create_app(opened), host="127.0.0.1", port=port, closing=closing):
            yield opened, f"http://127.0.0.1:{port}"


@pytest.fixture
async def running(settings: Settings, stores: Stores) -> AsyncIterator[tuple[Api, str]]:
    async with served(settings, stores) as running:
        yield running


@pytest.fixture
def api(running: tuple[Api, str]) -> Api:
    return running[0]


@pytest.fixture
def url(running: tuple[Api, str]) -> str:
    return running[1]


@pytest.fixture
async def keys(stores: Stores) -> dict[str, str]:
    """An API key for each of ROLES."""
    made = {user: new_api_key() for user in ROLES}
    for user, key in made.items():
        await stores.api_keys.store(key, Identity(user_id=user, role=ROLES[user]))
    return made


def client_of(url: str, key: str | None = None) -> httpx.AsyncClient:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers, timeout=20)


@pytest.fixture
async def clients(url: str, keys: dict[str, str]) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield {user: await stack.enter_async_context(client_of(url, key)) for user, key in keys.items()}


@pytest.fixture
def alice(clients: dict[str, httpx.AsyncClient]) -> httpx.AsyncClient:
    return clients["alice"]


@pytest.fixture
def bob(clients: dict[str, httpx.AsyncClient]) -> httpx.AsyncClient:
    return clients["bob"]


@pytest.fixture
def monitor(clients: dict[str, httpx.AsyncClient]) -> httpx.AsyncClient:
    return clients["monitor"]


@pytest.fixture
def admin(clients: dict[str, httpx.AsyncClient]) -> httpx.AsyncClient:
    return clients["admin"]


@pytest.fixture
async def anonymous(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(url) as client:
        yield client
