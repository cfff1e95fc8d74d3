"""Who may do what: API keys, the few public paths, and roles."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable

import structlog

from codefleet.domain.identity import Identity
from codefleet.errors import ForbiddenError, UnauthenticatedError
from codefleet.storage.api_keys import ApiKeyRepository
from services.api.deadline import in_time

PREFIX = "/api/v1"
PUBLIC_PATHS = frozenset(
    {
        "/health/live",
        "/health/ready",
        f"{PREFIX}/health/live",
        f"{PREFIX}/health/ready",
        f"{PREFIX}/docs",
        f"{PREFIX}/docs/docs.css",
        f"{PREFIX}/docs/docs.js",
    },
)
"""Every path that is answered without a key. Whatever is not listed here needs one, unknown paths included."""

CACHE_SECONDS = 5.0
"""How long a revoked key may go on working."""
_CACHED_KEYS = 1024

Headers = Iterable[tuple[bytes, bytes]]
log = structlog.get_logger(__name__)


class Authenticator:
    """Finds out whose key a request carries and remembers it for CACHE_SECONDS.

    Only hashes of keys are remembered. A key that is asked for by many requests at once is looked up once.
    """

    def __init__(self, keys: ApiKeyRepository) -> None:
        self._keys = keys
        self._known: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        self._lookups: dict[bytes, asyncio.Task[Identity]] = {}

    async def identify(self, headers: Headers) -> Identity:
        """Who asks.

        Raises:
            UnauthenticatedError: there is no key, or it is not valid (any more).
            UnavailableError: the database that knows the keys is away.
        """
        key = _key_in(headers)
        digest = hashlib.sha256(key).digest()
        known = self._known.get(digest)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        return await self._look_up(digest, key)

    async def _look_up(self, digest: bytes, key: bytes) -> Identity:
        lookup = self._lookups.get(digest)
        if lookup is None:
            lookup = asyncio.get_running_loop().create_task(self._identify(digest, key))
            self._lookups[digest] = lookup
            lookup.add_done_callback(lambda done: self._looked_up(digest, done))
        # A caller that goes away must not take the others' lookup with it.
        return await asyncio.shield(lookup)

    def _looked_up(self, digest: bytes, lookup: "asyncio.Task[Identity]") -> None:
        del self._lookups[digest]
        if not lookup.cancelled():
            # Every caller may have gone away; a failure that nobody saw is not worth a complaint.
            lookup.exception()

    async def _identify(self, digest: bytes, key: bytes) -> Identity:
        self._known.pop(digest, None)
        identity = await in_time(self._keys.identify(key.decode("latin-1")))
        self._known[digest] = identity, time.monotonic() + CACHE_SECONDS
        if len(self._known) > _CACHED_KEYS:
            self._known.popitem(last=False)
        log.info("authenticated", user_id=identity.user_id, key_id=identity.key_id)
        return identity


def _key_in(headers: Headers) -> bytes:
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise UnauthenticatedError("Expected `Authorization: Bearer <key>`", reason="not_bearer")
            return key.strip()
        if name == b"x-api-key":
            found = value.strip()
    if found is None:
        raise UnauthenticatedError("An API key is required: `Authorization: Bearer <key>`", reason="missing")
    return found


def require_changes(identity: Identity) -> None:
    """Raises ForbiddenError for an identity that may only look."""
    if not identity.may_change:
        raise ForbiddenError("A monitor's key may look but not change anything")


def require_sees_all(identity: Identity) -> None:
    """Raises ForbiddenError unless the identity may see what belongs to others."""
    if not identity.sees_all:
        raise ForbiddenError("This needs a key with the role monitor or admin")
