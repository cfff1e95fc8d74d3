"""The connection file and the key in it."""

import re

from codefleet.embedded.data_directory import Connection, DataDirectory


def connection(key):
    return Connection(url="http://127.0.0.1:1", api_key=key, mongo_url="mongodb://x", redis_url="redis://:secret@x")


def test_the_key_is_made_once_and_kept(tmp_path):
    data = DataDirectory(tmp_path)
    key = data.api_key()
    assert re.fullmatch(r"cf_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", key)
    assert data.api_key() != key
    data.write_connection(connection(key))
    assert data.api_key() == key


def test_a_broken_or_foreign_key_is_replaced(tmp_path):
    data = DataDirectory(tmp_path)
    data.connection_path.write_text("{")
    assert data.api_key().startswith("cf_")
    data.write_connection(connection("cf_short"))
    assert data.api_key() != "cf_short"


def test_the_file_is_the_owners_even_if_it_was_not_before(tmp_path):
    data = DataDirectory(tmp_path)
    data.connection_path.touch(mode=0o644)
    data.write_connection(connection("k"))
    assert data.connection_path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["connection.json"]


def test_a_printed_connection_shows_no_secret():
    assert "secret" not in repr(connection("cf_key"))
    assert "cf_key" not in str(connection("cf_key"))
