"""Who is let in, and what every refusal looks like."""

import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
import structlog

from codefleet.clock import new_task_id, utc_now
from codefleet.domain.api_key import new_api_key
from services.api import security
from services.api.security import PUBLIC_PATHS
from tests.integration.api.conftest import client_of


async def documented(admin: httpx.AsyncClient) -> list[tuple[str, str, dict[str, Any]]]:
    """Every operation of the OpenAPI document, with its path filled in."""
    paths = (await admin.get("/openapi.json")).json()["paths"]
    return [
        (method.upper(), path.replace("{task_id}", new_task_id()), operation)
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]


async def test_every_documented_route_needs_a_valid_key_unless_it_is_public(admin, url):
    refused = 0
    async with httpx.AsyncClient(base_url=url) as client:
        for method, path, _ in await documented(admin):
            for headers in ({}, {"X-API-Key": new_api_key()}, {"Authorization": "Bearer nonsense"}):
                response = await client.request(method, path, headers=headers)
                if path in PUBLIC_PATHS:
                    assert response.status_code == 200, path
                    continue
                refused += 1
                assert (response.status_code, response.json()["error"]["code"]) == (401, "UNAUTHENTICATED"), path
                assert response.headers["www-authenticate"].startswith("Bearer")
    assert refused > 30


async def test_the_document_marks_exactly_the_public_paths(admin):
    for _, path, operation in await documented(admin):
        assert (operation.get("security") == []) == (path in PUBLIC_PATHS), path


@pytest.mark.parametrize(
    "path", ["/nonsense", "/api/v1/nonsense", "/health", "/health/live/x", "/api/v1/docs/../tasks"]
)
async def test_unknown_paths_need_a_key_too(url, path):
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Authorization": "Bearer cf_short"},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"X-API-Key": ""},
        {"X-API-Key": "ü".encode("latin-1")},
        {"X-API-Key": '{"$ne": null}'},
    ],
)
async def test_what_is_no_key_is_refused(anonymous, headers):
    response = await anonymous.get("/tasks", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "UNAUTHENTICATED")


async def test_both_headers_and_any_case_of_the_scheme_work(anonymous, keys):
    for headers in ({"X-API-Key": keys["alice"]}, {"authorization": f"bearer {keys['alice']}"}):
        assert (await anonymous.get("/tasks", headers=headers)).status_code == 200


async def test_a_key_in_the_url_does_not_count(anonymous, keys):
    assert (await anonymous.get("/tasks", params={"api_key": keys["alice"]})).status_code == 401


async def test_the_public_part_of_a_key_with_another_secret_is_refused(anonymous, keys):
    forged = keys["alice"][:12] + new_api_key()[12:]
    assert (await anonymous.get("/tasks", headers={"X-API-Key": forged})).status_code == 401


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"revoked_at": utc_now()}, "revoked"),
        ({"expires_at": utc_now() - timedelta(seconds=1)}, "expired"),
    ],
    ids=["revoked", "expired"],
)
async def test_a_key_stops_working_when_its_time_is_over(anonymous, keys, stores, change, reason):
    await stores.mongo.collection("api_keys").update_one({"user_id": "alice"}, {"$set": change})
    response = await anonymous.get("/tasks", headers={"X-API-Key": keys["alice"]})
    assert (response.status_code, response.json()["error"]["details"]["reason"]) == (401, reason)


async def test_a_revoked_key_stops_working_within_the_time_of_the_cache(alice, api, stores):
    assert (await alice.get("/tasks")).status_code == 200
    assert security.CACHE_SECONDS <= 5
    await stores.mongo.collection("api_keys").update_one({"user_id": "alice"}, {"$set": {"revoked_at": utc_now()}})
    known = api.authenticator._known
    for digest, (identity, until) in list(known.items()):
        known[digest] = identity, until - security.CACHE_SECONDS
    assert (await alice.get("/tasks")).status_code == 401


async def test_the_cache_of_keys_is_bounded(api, keys, url, monkeypatch):
    monkeypatch.setattr(security, "_CACHED_KEYS", 2)
    for key in keys.values():
        async with client_of(url, key) as client:
            assert (await client.get("/tasks")).status_code == 200
    assert len(api.authenticator._known) == 2


async def test_failures_are_logged_with_their_reason_and_without_the_key(anonymous):
    key = new_api_key()
    with structlog.testing.capture_logs() as logs:
        await anonymous.get("/tasks", headers={"X-API-Key": key})
        await anonymous.get("/tasks")
    assert [entry["reason"] for entry in logs if entry["event"] == "authentication failed"] == ["unknown", "missing"]
    assert key not in repr(logs)
    assert key[12:] not in repr(logs)


async def test_roles_decide_who_sees_the_workers_and_the_metrics(alice, monitor, admin):
    for path in ("/workers", "/metrics"):
        response = await alice.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "FORBIDDEN")
        assert (await monitor.get(path)).status_code == 200
        assert (await admin.get(path)).status_code == 200
    assert (await alice.get("/queues")).status_code == 200


async def test_every_answer_carries_a_request_id(alice, anonymous):
    mine = await alice.get("/tasks", headers={"X-Request-Id": "trace-42"})
    assert mine.headers["x-request-id"] == "trace-42"
    ids = {(await client.get("/nonsense")).headers["x-request-id"] for client in (alice, alice, anonymous)}
    assert len(ids) == 3
    for unusable in ("x" * 129, "two words", ""):
        given = (await alice.get("/tasks", headers={"X-Request-Id": unusable})).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", given)


async def test_refusals_of_the_router_have_our_shape(alice):
    missing = await alice.get("/nonsense")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
    wrong = await alice.put("/tasks", json={})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "POST" in wrong.headers["allow"]
    for response in (missing, wrong):
        assert set(response.json()) == {"success", "error", "timestamp"}
        assert response.headers["content-type"] == "application/json"


async def test_an_error_of_ours_is_logged_and_not_told(alice, stores, monkeypatch):
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(stores.tasks, "get", broken)
    with structlog.testing.capture_logs() as logs:
        response = await alice.get(f"/tasks/{new_task_id()}")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert any(entry["event"] == "request failed" for entry in logs)


async def test_no_other_origin_is_let_in(alice):
    response = await alice.get("/tasks", headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]
    preflight = await alice.options("/tasks", headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in preflight.headers if name.startswith("access-control")]
