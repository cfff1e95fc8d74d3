import os
from pathlib import Path

import pytest

from codefleet.errors import ConfigurationError
from codefleet.settings import Secret, load_settings

STORES = {"CODEFLEET_MONGO_URL": "mongodb://m", "CODEFLEET_REDIS_URL": "redis://r"}


def test_defaults_need_nothing_but_the_stores():
    settings = load_settings(STORES)
    assert settings.mongo_url == "mongodb://m"
    assert settings.slots == 3
    assert settings.hostname


def test_every_value_is_read_from_its_variable():
    settings = load_settings(
        STORES
        | {
            "CODEFLEET_SLOTS": "7",
            "CODEFLEET_LEASE_SECONDS": "30",
            "CODEFLEET_DATA_DIR": "/var/lib/codefleet",
            "CODEFLEET_WORK_ROOTS": os.pathsep.join(["/srv/a", "", "/srv/b"]),
            "UNRELATED": "x",
        },
    )
    assert settings.slots == 7
    assert settings.lease_seconds == 30.0
    assert settings.data_dir == Path("/var/lib/codefleet")
    assert settings.work_roots == (Path("/srv/a"), Path("/srv/b"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CODEFLEET_SLOTS", "three"),
        ("CODEFLEET_SLOTS", "0"),
        ("CODEFLEET_SLOTS", "-1"),
        ("CODEFLEET_SLOTS", "1.5"),
        ("CODEFLEET_PORT", ""),
        ("CODEFLEET_LEASE_SECONDS", "soon"),
        ("CODEFLEET_LEASE_SECONDS", "4"),
        ("CODEFLEET_LEASE_SECONDS", "nan"),
        ("CODEFLEET_LEASE_SECONDS", "inf"),
        ("CODEFLEET_HEARTBEAT_SECONDS", "0"),
        ("CODEFLEET_HEARTBEAT_SECONDS", "-1"),
        ("CODEFLEET_HEARTBEAT_SECONDS", "nan"),
        ("CODEFLEET_CLAIM_SECONDS", "0"),
        ("CODEFLEET_TICK_SECONDS", "-0.1"),
        ("CODEFLEET_LEADER_LEASE_SECONDS", "0"),
        ("CODEFLEET_DRAIN_SECONDS", "nan"),
        ("CODEFLEET_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_is_refused_naming_its_key(key: str, value: str):
    with pytest.raises(ConfigurationError) as refused:
        load_settings(STORES | {key: value})
    assert key in refused.value.message
    assert "expected" in refused.value.message.lower()
    assert "got" in refused.value.message


@pytest.mark.parametrize("key", STORES)
def test_a_missing_value_is_named(key: str):
    with pytest.raises(ConfigurationError, match=key):
        load_settings({name: value for name, value in STORES.items() if name != key})


def test_a_lease_too_short_to_be_kept_is_refused():
    # A run ends a second before its lease; a lease that leaves no room for a missed heartbeat loses every run.
    with pytest.raises(ConfigurationError, match="CODEFLEET_LEASE_SECONDS"):
        load_settings(STORES | {"CODEFLEET_LEASE_SECONDS": "1.5", "CODEFLEET_HEARTBEAT_SECONDS": "0.5"})


def test_a_secret_is_not_shown_by_accident():
    secret = Secret("hunter2")
    assert "hunter2" not in repr(secret)
    assert "hunter2" not in repr([secret])
    assert secret == "hunter2"
