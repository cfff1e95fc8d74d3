"""What the end of mongod or redis-server means, in one line."""

import json
import signal

import pytest

from codefleet.embedded import mongod, redis_server


@pytest.mark.parametrize(
    ("library", "remedy"),
    [
        ("libcurl.so.4", "apt-get install libcurl4"),
        ("libssl.so.3", "apt-get install libssl3"),
        ("libcrypto.so.3", "apt-get install libssl3"),
        ("liblzma.so.5", "apt-get install liblzma5"),
        ("libfoo-bar.so", "the package that has libfoo-bar.so"),
    ],
)
def test_a_missing_library_names_its_package(library, remedy):
    failure = mongod.explain(127, [f"mongod: error while loading shared libraries: {library}: cannot open shared"])
    assert failure.final
    assert failure.reason.startswith(f"{library} is missing")
    assert failure.reason.endswith(remedy)


def test_an_illegal_instruction_is_a_processor_without_avx():
    failure = mongod.explain(-signal.SIGILL, [])
    assert failure.final
    assert "AVX" in failure.reason


def test_the_last_error_of_mongod_counts():
    lines = [
        json.dumps({"s": "E", "msg": "terminating", "attr": {"error": "DBPathInUse: locked"}}),
        json.dumps({"s": "I", "msg": "shutting down"}),
    ]
    assert mongod.explain(100, lines).reason == "exit 100: terminating: DBPathInUse: locked"
    assert mongod.explain(1, ["bad option"]).reason == "exit 1: bad option"
    assert mongod.explain(1, []).reason == "exit 1: no output"


def test_a_snapshot_of_a_newer_redis_names_the_way_out():
    failure = redis_server.explain(1, ["# Can't handle RDB format version 11", ""])
    assert failure.final
    assert "delete it" in failure.reason
    assert redis_server.explain(1, ["# bind: Address already in use", ""]).reason.endswith("Address already in use")
