"""Where the servers' programs come from, and what is said when there are none."""

import os

import pytest

from codefleet.embedded import binaries
from codefleet.errors import ConfigurationError


@pytest.fixture
def program(tmp_path):
    def make(name, mode=0o755):
        path = tmp_path / name
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
        return path

    return make


def test_a_configured_program_comes_first(program):
    chosen = program("mine")
    assert binaries.find_mongod({"CODEFLEET_MONGOD_BINARY": str(chosen)}) == chosen
    assert binaries.find_redis_server({"CODEFLEET_REDIS_SERVER_BINARY": str(chosen)}) == chosen


def test_redis_prefers_path_and_mongod_prefers_its_wheel(program, tmp_path, monkeypatch):
    wheel, mongod, redis = program("wheel"), program("mongod"), program("redis-server")
    monkeypatch.setattr(binaries, "_in_wheel", lambda *_: wheel)
    environ = {"PATH": str(tmp_path)}
    assert binaries.find_mongod(environ) == wheel
    assert binaries.find_redis_server(environ) == redis
    monkeypatch.setattr(binaries, "_in_wheel", lambda *_: None)
    assert binaries.find_mongod(environ) == mongod


def test_the_run_bit_that_pip_dropped_is_set(program):
    chosen = program("mongod", 0o644)
    binaries.find_mongod({"CODEFLEET_MONGOD_BINARY": str(chosen)})
    assert os.access(chosen, os.X_OK)


@pytest.mark.parametrize("find", [binaries.find_mongod, binaries.find_redis_server])
def test_a_missing_program_is_named_with_what_to_install(find, tmp_path, monkeypatch):
    monkeypatch.setattr(binaries, "_in_wheel", lambda *_: None)
    with pytest.raises(ConfigurationError, match=r"was not found: .*codefleet\[embedded\].*_URL") as caught:
        find({"PATH": str(tmp_path)})
    assert "\n" not in caught.value.message


def test_a_package_that_is_not_installed_has_no_program():
    assert binaries._in_wheel("surely_not_installed", "bin/x") is None
