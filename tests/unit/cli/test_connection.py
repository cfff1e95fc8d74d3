"""Which server is chosen, and with which key."""

import json
import os
from pathlib import Path

import pytest

from codefleet_cli.connection import find_server
from codefleet_cli.errors import InvalidInputError, NotConfiguredError

ENVIRON = {"CODEFLEET_URL": "http://environ:1", "CODEFLEET_API_KEY": "environ-key"}


@pytest.fixture
def data_dir(tmp_path):
    return write(tmp_path / ".codefleet", url="http://file:1", api_key="file-key")


def write(directory, **content):
    directory.mkdir(parents=True)
    (directory / "connection.json").write_text(json.dumps(content))
    return directory


def found(**wanted):
    server = find_server(**{"environ": {}, "directory": Path("/"), **wanted})
    return server.url, server.api_key


def test_options_come_before_everything(data_dir):
    assert found(url="http://option:1/", api_key="k", data_dir=data_dir, environ=ENVIRON) == ("http://option:1", "k")
    assert found(url="http://option:1", environ=ENVIRON) == ("http://option:1", "environ-key")


def test_a_directory_that_was_asked_for_brings_its_own_key(data_dir):
    assert found(data_dir=data_dir, environ=ENVIRON) == ("http://file:1", "file-key")
    assert found(data_dir=data_dir, api_key="k") == ("http://file:1", "k")


def test_the_environment_comes_before_the_search(data_dir):
    assert found(directory=data_dir.parent, environ=ENVIRON) == ("http://environ:1", "environ-key")
    assert found(environ={"CODEFLEET_DATA_DIR": str(data_dir)}) == ("http://file:1", "file-key")


@pytest.mark.usefixtures("data_dir")
def test_the_nearest_file_upwards_is_taken(tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert found(directory=deep) == ("http://file:1", "file-key")
    write(tmp_path / "a" / ".codefleet", url="http://nearer:1", api_key="")
    assert found(directory=deep, environ={"CODEFLEET_API_KEY": "mine"}) == ("http://nearer:1", "mine")


def test_nothing_found_says_what_to_do(tmp_path):
    with pytest.raises(NotConfiguredError) as error:
        found(directory=tmp_path)
    assert "codefleet up" in error.value.advice
    with pytest.raises(NotConfiguredError, match="there is no"):
        found(data_dir=tmp_path)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", "http://x:99999", "http://[::1"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InvalidInputError, match="not a URL"):
        found(url=url)


def test_a_key_that_no_header_can_carry_is_refused():
    assert found(url="http://x", api_key=" key\n") == ("http://x", "key")
    with pytest.raises(InvalidInputError, match="characters") as error:
        found(url="http://x", api_key="sécret")
    assert "sécret" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", '{"url": "http://x"}'])
def test_a_file_that_cannot_be_used_is_named(data_dir, content):
    (data_dir / "connection.json").write_text(content)
    with pytest.raises(InvalidInputError, match=r"connection\.json"):
        found(data_dir=data_dir)


def test_a_file_of_somebody_else_is_not_trusted(data_dir, monkeypatch):
    owner = (data_dir / "connection.json").stat().st_uid
    # As root one owns everything one makes: pretend that root made none of it.
    real = os.stat_result
    monkeypatch.setattr(Path, "stat", lambda _, **__: real((0o100600, 0, 0, 1, owner + 12_345, 0, 0, 0, 0, 0)))
    with pytest.raises(InvalidInputError, match="another user"):
        found(data_dir=data_dir)


def test_only_loopback_is_local_and_the_key_is_not_printed():
    server = find_server(url="http://127.0.0.1:1", api_key="secret", environ={})
    assert server.is_local
    assert not find_server(url="http://example.org", environ={}).is_local
    assert "secret" not in repr(server)
