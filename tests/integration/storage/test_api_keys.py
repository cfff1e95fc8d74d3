"""API keys in a real MongoDB."""

from datetime import datetime, timedelta

import pytest

from codefleet.clock import utc_now
from codefleet.domain.api_key import new_api_key
from codefleet.domain.identity import Identity, Role
from codefleet.errors import UnauthenticatedError
from codefleet.service import Stores
from codefleet.storage.api_keys import ApiKeyRepository

ADA = Identity(user_id="ada", role=Role.SUBMITTER)


@pytest.fixture
def keys(stores: Stores) -> ApiKeyRepository:
    return stores.api_keys


async def reason(keys: ApiKeyRepository, key: str) -> str:
    with pytest.raises(UnauthenticatedError) as refused:
        await keys.identify(key)
    assert key not in refused.value.message or not key
    return str(refused.value.details["reason"])


async def test_a_key_identifies_its_owner(keys: ApiKeyRepository):
    key = new_api_key()
    await keys.store(key, ADA)
    found = await keys.identify(key)
    assert (found.user_id, found.role) == ("ada", Role.SUBMITTER)
    assert found.key_id in key
    await keys.store(key, Identity(user_id="ada", role=Role.ADMIN))
    assert (await keys.identify(key)).role is Role.ADMIN


async def test_of_the_secret_nothing_but_a_hash_is_stored(stores: Stores, keys: ApiKeyRepository):
    key = new_api_key()
    await keys.store(key, ADA)
    raw = str(await stores.mongo.collection("api_keys").find_one({}))
    assert key.rpartition("_")[2] not in raw
    assert key not in raw


async def test_another_secret_under_a_known_id_is_unknown(keys: ApiKeyRepository):
    key, other = new_api_key(), new_api_key()
    await keys.store(key, ADA)
    assert await reason(keys, key[:12] + other[12:]) == "unknown"
    assert await reason(keys, other) == "unknown"


async def test_revoked_and_expired_keys_are_refused(stores: Stores, keys: ApiKeyRepository):
    async def change(**fields: datetime | None) -> None:
        await stores.mongo.collection("api_keys").update_one({"_id": key[3:11]}, {"$set": fields})

    key = new_api_key()
    await keys.store(key, ADA)
    await change(expires_at=utc_now() + timedelta(minutes=1))
    await keys.identify(key)
    await change(expires_at=utc_now() - timedelta(milliseconds=1))
    assert await reason(keys, key) == "expired"
    await change(expires_at=None, revoked_at=utc_now())
    assert await reason(keys, key) == "revoked"


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "cf_",
        "cf_abcdefgh_",
        "cf_abcdefgh_" + "x" * 42,
        "cf_abcdefgh_" + "x" * 44,
        "cf_abcdefgh_" + "x" * 43 + "\n",
        "CF_abcdefgh_" + "x" * 43,
        "cf_{$gt:''}_" + "x" * 43,
        "cf_abcdefg\0_" + "x" * 43,
        "é" * 60,
        "x" * 100_000,
    ],
)
async def test_garbage_is_refused_before_the_database_is_asked(keys: ApiKeyRepository, garbage: str):
    assert await reason(keys, garbage) == "malformed"
    with pytest.raises(ValueError, match="form"):
        await keys.store(garbage, ADA)
