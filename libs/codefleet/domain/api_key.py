"""The form of an API key: `cf_<id>_<secret>`."""

import re
import secrets
import string

import msgspec

_ALPHABET = string.digits + string.ascii_lowercase
_FORM = re.compile(r"cf_([0-9a-z]{8})_([0-9A-Za-z_-]{43})")


class ApiKeyParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is made of: an id, which may be shown, and a secret, of which at most a hash is kept."""

    key_id: str
    secret: str

    def __repr__(self) -> str:
        return f"ApiKeyParts(key_id={self.key_id!r}, …)"


def new_api_key() -> str:
    """A fresh key with 256 bits of secret."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return f"cf_{key_id}_{secrets.token_urlsafe(32)}"


def parts_of(key: str) -> ApiKeyParts | None:
    """The parts of a key; None if it does not have the form of one."""
    form = _FORM.fullmatch(key)
    return None if form is None else ApiKeyParts(key_id=form[1], secret=form[2])
