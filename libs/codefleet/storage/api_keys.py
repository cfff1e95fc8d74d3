"""API keys. A key is `cf_<id>_<secret>`; of the secret only a hash is stored."""

import hashlib
import hmac
import re
import secrets

from codefleet.clock import utc_now
from codefleet.domain.identity import Identity, Role
from codefleet.errors import UnauthenticatedError
from codefleet.storage.documents import ApiKeyDocument
from codefleet.storage.mongo import translated

_FORM = re.compile(r"cf_([0-9a-z]{8})_([0-9A-Za-z_-]{43})")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_api_key() -> str:
    """A fresh key with 256 bits of secret."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return f"cf_{key_id}_{secrets.token_urlsafe(32)}"


def _hash(secret: str) -> str:
    # The secret is random, not chosen by a person, so a fast hash gives nothing away.
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeyRepository:
    async def store(self, key: str, identity: Identity) -> None:
        """Makes `key` valid for `identity`; storing it again changes its identity.

        Raises:
            ValueError: it does not have the form of a key.
        """
        form = _FORM.fullmatch(key)
        if form is None:
            raise ValueError("an API key has the form cf_<8 characters>_<43 characters>")
        document = ApiKeyDocument(
            id=form[1],
            secret_hash=_hash(form[2]),
            user_id=identity.user_id,
            role=identity.role,
            created_at=utc_now(),
        )
        # Beanie's own `save` of this line calls what pydantic has deprecated.
        fields = document.model_dump(exclude={"id", "revision_id"})
        with translated():
            await ApiKeyDocument.get_motor_collection().replace_one({"_id": document.id}, fields, upsert=True)

    async def identify(self, key: str) -> Identity:
        """Whose key this is.

        Raises:
            UnauthenticatedError: it is unknown, expired or revoked; `details` has the `reason`.
        """
        form = _FORM.fullmatch(key)
        if form is None:
            raise UnauthenticatedError("This is not an API key", reason="malformed")
        with translated():
            document = await ApiKeyDocument.get(form[1])
        if document is None or not hmac.compare_digest(document.secret_hash, _hash(form[2])):
            raise UnauthenticatedError("This API key is not known", reason="unknown")
        if document.revoked_at is not None:
            raise UnauthenticatedError("This API key has been revoked", reason="revoked")
        if document.expires_at and document.expires_at <= utc_now():
            raise UnauthenticatedError("This API key has expired", reason="expired")
        return Identity(user_id=document.user_id, role=Role(document.role), key_id=document.id)
