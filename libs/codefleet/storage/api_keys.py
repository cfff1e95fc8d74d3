"""API keys; of the secret only a hash is stored."""

import hashlib
import hmac

from codefleet.clock import utc_now
from codefleet.domain.api_key import parts_of
from codefleet.domain.identity import Identity, Role
from codefleet.errors import UnauthenticatedError
from codefleet.storage.documents import ApiKeyDocument
from codefleet.storage.mongo import translated


def _hash(secret: str) -> str:
    # The secret is random, not chosen by a person, so a fast hash gives nothing away.
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeyRepository:
    async def store(self, key: str, identity: Identity) -> None:
        """Makes `key` valid for `identity`; storing it again changes its identity.

        Raises:
            ValueError: it does not have the form of a key.
        """
        parts = parts_of(key)
        if parts is None:
            raise ValueError("an API key has the form cf_<8 characters>_<43 characters>")
        document = ApiKeyDocument(
            id=parts.key_id,
            secret_hash=_hash(parts.secret),
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
        parts = parts_of(key)
        if parts is None:
            raise UnauthenticatedError("This is not an API key", reason="malformed")
        with translated():
            document = await ApiKeyDocument.get(parts.key_id)
        if document is None or not hmac.compare_digest(document.secret_hash, _hash(parts.secret)):
            raise UnauthenticatedError("This API key is not known", reason="unknown")
        if document.revoked_at is not None:
            raise UnauthenticatedError("This API key has been revoked", reason="revoked")
        if document.expires_at and document.expires_at <= utc_now():
            raise UnauthenticatedError("This API key has expired", reason="expired")
        return Identity(user_id=document.user_id, role=Role(document.role), key_id=document.id)
