"""POST /tasks: what is accepted, what is refused, and what a success promises."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from codefleet.domain.queues import Queue
from codefleet.domain.states import State
from codefleet.messages import TasksReady
from codefleet.queueing.streams import wake_stream
from codefleet.service import Stores
from codefleet.storage.tasks import TaskFilter
from services.api.examples import SUBMISSIONS
from tests.support.waiting import eventually

DIAGNOSTIC = {"type": "diagnostic"}


async def stored(stores: Stores) -> int:
    return len(await stores.tasks.page(TaskFilter(), limit=500))


def refusal(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert body["success"] is False
    assert body["timestamp"]
    error: dict[str, Any] = body["error"]
    assert set(error) == {"code", "message", "details"}
    return error


async def test_the_create_example_of_the_task_server_seed_works(alice, settings, stores):
    body = {
        "work_directory": f"{settings.work_roots[0]}/project",
        "prompt": "请分析这个代码库中的性能问题，并提出优化建议",
        "priority": "high",
        "tags": ["performance", "analysis"],
    }
    response = await alice.post("/tasks", json=body)
    assert response.status_code == 202
    data = response.json()["data"]
    assert response.json()["success"] is True
    assert response.headers["location"] == f"/api/v1/tasks/{data['task_id']}"
    assert (data["status"], data["priority"], data["tags"]) == ("pending", 8, ["performance", "analysis"])
    assert (data["type"], data["executor"], data["user_id"]) == ("agent", "claude", "alice")
    task = await stores.tasks.get(data["task_id"])
    assert task is not None
    assert task.state is State.PENDING
    assert task.history[0].actor == "user:alice"


async def test_the_create_body_of_the_task_queue_seed_works(alice):
    body = {
        "name": "review",
        "command": "/review",
        "args": ["src/app.py", "--strict"],
        "project_id": "project-1",
        "priority": 5,
        "timeout": 3600,
        "max_retries": 3,
        "scheduled_at": "2020-08-18T10:00:00Z",
        "depends_on": [],
    }
    del body["scheduled_at"]
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    data = (await alice.post("/tasks", json=body | {"scheduled_at": soon})).json()["data"]
    assert (data["command"], data["args"], data["prompt"]) == ("/review", ["src/app.py", "--strict"], "")
    assert (data["timeout"], data["max_retries"], data["project_id"]) == (3600, 3, "project-1")
    assert datetime.fromisoformat(data["scheduled_at"]) > datetime.now(UTC) + timedelta(minutes=59)


@pytest.mark.parametrize("name", SUBMISSIONS)
async def test_the_documented_examples_work(alice, settings, name):
    body = dict(SUBMISSIONS[name])
    if "work_directory" in body:
        body["work_directory"] = f"{settings.work_roots[0]}/project"
    assert (await alice.post("/tasks", json=body)).status_code == 202


async def test_what_is_left_out_has_documented_defaults(alice):
    data = (await alice.post("/tasks", json={"prompt": "\n  Fix the bug\nin app.py"})).json()["data"]
    assert data["name"] == "Fix the bug"
    assert (data["type"], data["executor"], data["queue"]) == ("agent", "claude", "claude_execution")
    assert (data["priority"], data["timeout"], data["max_retries"], data["retry_delay"]) == (5, 3600, 3, 60)
    assert (data["project_id"], data["work_directory"], data["tags"]) == ("default", "", [])
    assert (data["worker_id"], data["duration"], data["attempts"]) == (None, None, [])
    assert "id" not in data["history"][0]
    assert not {"epoch", "lease_renewed_at", "due_at", "idempotency_key", "fingerprint"} & set(data)


async def test_nulls_count_as_left_out(alice):
    nothing = dict.fromkeys(("name", "executor", "work_directory", "scheduled_at"))
    assert (await alice.post("/tasks", json={"prompt": "x", **nothing})).status_code == 202


async def test_a_mapping_of_tags_is_stored_as_key_and_value(alice):
    body = {"prompt": "x", "tags": {"team": "core", "kind": "review"}}
    assert (await alice.post("/tasks", json=body)).json()["data"]["tags"] == ["team:core", "kind:review"]


async def test_duplicate_keys_in_a_body_mean_the_last_one(alice):
    response = await alice.post(
        "/tasks",
        content=b'{"prompt": "a", "prompt": "b"}',
        headers={"content-type": "application/json"},
    )
    assert response.json()["data"]["prompt"] == "b"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": "  \n"}, "prompt"),
    ({"prompt": "x" * 100_001}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": "a\0b"}, "prompt"),
    ({"command": "a\0b"}, "command"),
    ({"command": "x" * 60_000, "args": ["y" * 50_000]}, "args"),
    ({"prompt": "x", "args": ["a\0"]}, "args[0]"),
    ({"prompt": "x", "args": "ls"}, "args"),
    ({"prompt": "x", "args": [1]}, "args[0]"),
    ({"prompt": "x", "name": "n" * 201}, "name"),
    ({"prompt": "x", "name": "two\r\nlines"}, "name"),
    ({"prompt": "x", "name": "\x1b[31mred"}, "name"),
    ({"prompt": "x", "type": "nonsense"}, "type"),
    ({"prompt": "x", "executor": "nonsense"}, "executor"),
    ({"prompt": "x", "executor": "any"}, "executor"),
    ({"prompt": "x", "priority": 0}, "priority"),
    ({"prompt": "x", "priority": 11}, "priority"),
    ({"prompt": "x", "priority": 2**63}, "priority"),
    ({"prompt": "x", "priority": True}, "priority"),
    ({"prompt": "x", "priority": 1.5}, "priority"),
    ({"prompt": "x", "priority": "soonish"}, "priority"),
    ({"prompt": "x", "priority": "9" * 5000}, "priority"),
    ({"prompt": "x", "timeout": 0}, "timeout"),
    ({"prompt": "x", "timeout": -1}, "timeout"),
    ({"prompt": "x", "timeout": 604_801}, "timeout"),
    ({"prompt": "x", "timeout": "60"}, "timeout"),
    ({"prompt": "x", "max_retries": -1}, "max_retries"),
    ({"prompt": "x", "max_retries": 101}, "max_retries"),
    ({"prompt": "x", "retry_delay": -0.1}, "retry_delay"),
    ({"prompt": "x", "project_id": ""}, "project_id"),
    ({"prompt": "x", "project_id": "a" * 101}, "project_id"),
    ({"prompt": "x", "project_id": "a b\n"}, "project_id"),
    ({"prompt": "x", "project_id": "fine\n"}, "project_id"),
    ({"prompt": "x", "project_id": {"$gt": ""}}, "project_id"),
    ({"prompt": "x", "tags": ["t"] * 51}, "tags"),
    ({"prompt": "x", "tags": ["t" * 101]}, "tags[0]"),
    ({"prompt": "x", "tags": {"k" * 60: "v" * 60}}, "tags"),
    ({"prompt": "x", "tags": [""]}, "tags[0]"),
    ({"prompt": "x", "tags": ["a\nb"]}, "tags[0]"),
    ({"prompt": "x", "tags": "one"}, "tags"),
    ({"prompt": "x", "scheduled_at": "tomorrow"}, "scheduled_at"),
    ({"prompt": "x", "scheduled_at": "2999-01-01T00:00:00Z"}, "scheduled_at"),
    ({"prompt": "x", "scheduled_at": "1970-01-01T00:00:00Z"}, "scheduled_at"),
    ({"prompt": "x", "scheduled_at": "0001-01-01T00:00:00+14:00"}, "scheduled_at"),
    ({"prompt": "x", "depends_on": ["01a203f5-0192-7ae9-ac0f-67e77583934c"]}, "depends_on"),
    ({"prompt": "x", "work_directory": "/etc"}, "work_directory"),
    ({"prompt": "x", "work_directory": "relative"}, "work_directory"),
    ({"prompt": "x", "work_directory": "-rf"}, "work_directory"),
    ({"prompt": "x", "work_directory": "/a\0b"}, "work_directory"),
    ({"prompt": "x", "work_directory": ["/a"]}, "work_directory"),
    ({"prompt": "x", "parameters": {"nonsense": 1}}, "parameters"),
    ({"prompt": "x", "parameters": {"model": "-flag"}}, "parameters.model"),
    ({"prompt": "x", "parameters": {"max_turns": 2**63}}, "parameters.max_turns"),
    ({"prompt": "x", "parameters": {"$where": "1"}}, "parameters"),
    ({"prompt": "x", "parameters": []}, "parameters"),
    ({"type": "diagnostic", "parameters": {"effect_file": "/x\0"}}, "parameters.effect_file"),
    ({"prompt": "x", "status": "success"}, "status"),
    ({"prompt": "x", "epoch": 9}, "epoch"),
    ({"prompt": "x", "attempt": 9}, "attempt"),
    ({"prompt": "x", "user_id": "bob"}, "user_id"),
    ({"prompt": "x", "_id": "mine"}, "_id"),
]


async def test_what_is_not_acceptable_is_refused_by_name_and_leaves_nothing(alice, stores):
    for body, field in REFUSED:
        response = await alice.post("/tasks", json=body)
        assert response.status_code == 422, body
        error = refusal(response)
        assert error["code"] == "VALIDATION_ERROR"
        assert error["details"]["field"] == field, (body, error)
        assert error["details"]["reason"]
    assert await stored(stores) == 0


async def test_paths_that_climb_or_only_look_alike_are_refused(alice, settings):
    root = settings.work_roots[0]
    for path in (f"{root}/../other", f"{root}x", f"{root}/a/../../b", "/"):
        response = await alice.post("/tasks", json={"prompt": "x", "work_directory": path})
        assert response.status_code == 422, path
        assert refusal(response)["details"]["field"] == "work_directory"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"prompt": NaN}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\udc00 low"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"prompt": "x"}',
        b'{"parameters":' + b'{"a":' * 10_000,
        b'{"prompt": "x"}{"prompt": "y"}',
    ],
)
async def test_what_is_not_json_is_malformed(alice, stores, body):
    response = await alice.post("/tasks", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, refusal(response)["code"]) == (400, "MALFORMED_REQUEST")
    assert await stored(stores) == 0


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null", b"[" * 100_000])
async def test_json_that_is_not_an_object_is_refused(alice, body):
    response = await alice.post("/tasks", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, refusal(response)["code"]) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_other_kinds_of_body_are_unsupported(alice, headers):
    response = await alice.post("/tasks", content=b'{"prompt": "x"}', headers=headers)
    assert (response.status_code, refusal(response)["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_body_over_the_limit_is_refused_with_and_without_its_length(alice, stores):
    large = json.dumps({"prompt": "x" * (2 * 1024 * 1024)}).encode()

    async def in_pieces():
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    for content in (large, in_pieces()):
        response = await alice.post("/tasks", content=content, headers={"content-type": "application/json"})
        assert (response.status_code, refusal(response)["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert await stored(stores) == 0


async def test_a_prompt_of_full_length_is_stored_whole(alice, stores):
    prompt = "界" * 100_000
    data = (await alice.post("/tasks", json={"prompt": prompt})).json()["data"]
    task = await stores.tasks.get(data["task_id"])
    assert task is not None
    assert task.prompt == prompt


async def test_a_submitted_task_enters_the_ready_index_and_wakes_the_scheduler(alice, stores, settings):
    data = (await alice.post("/tasks", json=DIAGNOSTIC)).json()["data"]
    await eventually(lambda: stores.ready.depth(Queue.DEFAULT), until=lambda depth: depth == 1)
    assert await stores.ready.take([Queue.DEFAULT], 1, now_milliseconds=0) == [data["task_id"]]
    await eventually(lambda: stores.redis.xlen(wake_stream(settings.redis_prefix)))
    [(_, fields)] = await stores.redis.xrange(wake_stream(settings.redis_prefix))
    assert TasksReady.__struct_config__.tag in fields[b"n"].decode()


async def test_a_scheduled_task_waits_outside_the_ready_index(alice, stores):
    naive = (datetime.now(UTC) + timedelta(hours=2)).replace(tzinfo=None, microsecond=0)
    data = (await alice.post("/tasks", json=DIAGNOSTIC | {"scheduled_at": naive.isoformat()})).json()["data"]
    task = await stores.tasks.get(data["task_id"])
    assert task is not None
    assert task.due_at == task.scheduled_at == naive.replace(tzinfo=UTC)
    await alice.post("/tasks", json=DIAGNOSTIC)
    await eventually(lambda: stores.ready.depth(Queue.DEFAULT), until=lambda depth: depth == 1)


async def test_a_time_in_the_past_means_now_and_gives_no_head_start(alice, stores):
    data = (await alice.post("/tasks", json=DIAGNOSTIC | {"scheduled_at": "2020-01-01T00:00:00+08:00"})).json()["data"]
    task = await stores.tasks.get(data["task_id"])
    assert task is not None
    assert task.due_at is None
    assert task.scheduled_at == task.created_at


async def test_one_idempotency_key_makes_one_task_however_often_it_comes_at_once(alice, stores):
    async def post() -> httpx.Response:
        return await alice.post("/tasks", json=DIAGNOSTIC, headers={"Idempotency-Key": "release 1.2"})

    responses = await asyncio.gather(*(post() for _ in range(100)))
    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["data"]["task_id"] for response in responses}) == 1
    assert sum("idempotency-replayed" in response.headers for response in responses) == 99
    assert await stored(stores) == 1


async def test_the_same_request_written_differently_is_still_the_same(alice):
    first = b'{"type":"diagnostic","parameters":{"sleep_seconds":1,"output_lines":2}}'
    second = b'{ "parameters": {"output_lines": 2, "sleep_seconds": 1}, "type": "diagnostic" }'
    headers = {"Idempotency-Key": "k", "content-type": "application/json"}
    assert (await alice.post("/tasks", content=first, headers=headers)).status_code == 202
    again = await alice.post("/tasks", content=second, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"


async def test_an_idempotency_key_with_another_body_is_a_conflict(alice, stores):
    headers = {"Idempotency-Key": "k"}
    await alice.post("/tasks", json=DIAGNOSTIC, headers=headers)
    response = await alice.post("/tasks", json=DIAGNOSTIC | {"priority": 9}, headers=headers)
    assert (response.status_code, refusal(response)["code"]) == (409, "CONFLICT")
    assert await stored(stores) == 1


async def test_idempotency_keys_of_two_owners_do_not_meet(alice, bob):
    headers = {"Idempotency-Key": "k"}
    mine = await alice.post("/tasks", json=DIAGNOSTIC, headers=headers)
    other = await bob.post("/tasks", json=DIAGNOSTIC, headers=headers)
    assert mine.json()["data"]["task_id"] != other.json()["data"]["task_id"]


@pytest.mark.parametrize("key", ["", "k" * 256, "sn\u00f6w".encode("latin-1")])
async def test_an_unusable_idempotency_key_is_refused(alice, key):
    response = await alice.post("/tasks", json=DIAGNOSTIC, headers={"Idempotency-Key": key})
    assert (response.status_code, refusal(response)["details"]["field"]) == (422, "Idempotency-Key")


async def test_a_monitor_may_not_submit(monitor):
    response = await monitor.post("/tasks", json=DIAGNOSTIC)
    assert (response.status_code, refusal(response)["code"]) == (403, "FORBIDDEN")
