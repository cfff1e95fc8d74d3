"""Ports are remembered, held and never shared between stacks."""

import contextlib
import json
import socket

import pytest

from codefleet.embedded import ports
from codefleet.embedded.ports import PortBook
from codefleet.errors import ConfigurationError


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(ports, "_RELEASE_SECONDS", 0.05)


@pytest.fixture
def book(tmp_path):
    opened = []

    def make(name="ports.json"):
        opened.append(PortBook(tmp_path / name))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@contextlib.contextmanager
def listening(port):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        yield


async def test_a_port_is_remembered(book):
    first = book()
    port = await first.claim("mongo")
    first.save()
    first.close()
    assert await book().claim("mongo") == port


async def test_a_remembered_port_that_is_taken_is_replaced(book, tmp_path):
    first = book()
    port = await first.claim("mongo")
    (tmp_path / "other.json").write_text(json.dumps({"mongo": port}))
    with listening(port):
        assert await book("other.json").claim("mongo") != port


async def test_an_unreadable_book_is_a_new_one(book, tmp_path):
    (tmp_path / "ports.json").write_text('{"mongo": "x"')
    assert await book().claim("mongo") > 0


@pytest.mark.parametrize("shared", [False, True])
async def test_a_wanted_port_that_is_claimed_or_listened_on_is_refused(book, shared):
    port = await book().claim("api", shared=shared)
    with contextlib.nullcontext() if shared else listening(port):
        for again in (False, True):
            with pytest.raises(ConfigurationError, match=f"port {port} is in use"):
                await book("other.json").claim("api", wanted=port, shared=again)


async def test_servers_bind_beside_the_claim(book):
    port = await book().claim("api", shared=True)
    listeners = [socket.socket() for _ in range(2)]
    for listener in listeners:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    with socket.create_connection(("127.0.0.1", port)):
        pass
    for listener in listeners:
        listener.close()


async def test_preferred_unless_remembered_or_taken(book):
    preferred = await book("other.json").claim("api", shared=True)
    assert await book().claim("api", preferred=preferred, shared=True) != preferred
