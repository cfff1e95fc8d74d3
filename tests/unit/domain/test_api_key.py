from codefleet.domain.api_key import new_api_key, parts_of


def test_keys_are_not_repeated():
    assert len({new_api_key() for _ in range(1000)}) == 1000


def test_a_key_has_an_id_and_a_secret_that_is_not_printed():
    key = new_api_key()
    parts = parts_of(key)
    assert parts is not None
    assert key == f"cf_{parts.key_id}_{parts.secret}"
    assert parts.key_id in repr(parts)
    assert parts.secret not in repr(parts)


def test_what_is_no_key_has_no_parts():
    assert parts_of("") is None
    assert parts_of(new_api_key() + "\n") is None
