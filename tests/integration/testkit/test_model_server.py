"""The stand-in over plain HTTP: shapes, validation, records, and the process form."""

import asyncio
import json
import os
import sys

import httpx
import pytest

from codefleet_testkit.model_server import ModelServer

KEY = {"x-api-key": "sk-ant-made-up-0001"}


def _body(prompt: str, **fields: object) -> dict[str, object]:
    return {"model": "some-model", "max_tokens": 100, "messages": [{"role": "user", "content": prompt}], **fields}


@pytest.fixture
async def http(server):
    async with httpx.AsyncClient(base_url=server.url, headers=KEY, trust_env=False) as client:
        yield client


async def test_answers_with_one_json_message(http):
    message = (await http.post("/v1/messages", json=_body("[[answer text=Yes]]"))).json()

    assert message["content"] == [{"type": "text", "text": "Yes"}]
    assert message["stop_reason"] == "end_turn"
    assert message["usage"]["input_tokens"] > 0
    assert message["usage"]["output_tokens"] > 0


async def test_streams_the_documented_sequence_of_events(http):
    tools = [{"name": "Write", "input_schema": {}}]
    text = (await http.post("/v1/messages", json=_body("[[write path=a text=b]]", stream=True, tools=tools))).text
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    arguments = "".join(event["delta"].get("partial_json", "") for event in events if "block_delta" in event["type"])

    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert json.loads(arguments) == {"file_path": "a", "content": "b"}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-2]["usage"]["output_tokens"] > 0


async def test_speaks_to_the_editor_and_shell_tools_of_the_api(http):
    tools = [{"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}, {"name": "bash"}]
    prompt = "[[write path=a text=b]] [[run command=ls parallel=true]]"
    message = (await http.post("/v1/messages", json=_body(prompt, tools=tools))).json()

    assert [block["input"]["command"] for block in message["content"][1:]] == ["create", "ls"]


async def test_counts_tokens(http):
    few = (await http.post("/v1/messages/count_tokens", json=_body("a"))).json()
    many = (await http.post("/v1/messages/count_tokens", json=_body("a" * 4000))).json()

    assert 0 < few["input_tokens"] < many["input_tokens"] - 900


@pytest.mark.parametrize(
    ("headers", "body", "status", "kind"),
    [
        ({"x-api-key": ""}, _body("a"), 401, "authentication_error"),
        ({"x-api-key": "invalid"}, _body("a"), 401, "authentication_error"),
        (KEY, {"model": "m", "max_tokens": 1, "messages": []}, 400, "invalid_request_error"),
        (KEY, _body("[[write]]"), 400, "invalid_request_error"),
        (KEY, _body("[[error status=529]]"), 529, "overloaded_error"),
    ],
)
async def test_refuses_in_the_shape_of_the_api(http, headers, body, status, kind):
    response = await http.post("/v1/messages", json=body, headers=headers)

    assert response.status_code == status
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == kind


async def test_an_error_tells_when_to_come_back_and_how_often_it_happens(http):
    body = _body("[[error status=429 retry_after=1.5 times=2]]")
    responses = [await http.post("/v1/messages", json=body) for _ in range(3)]

    assert [response.status_code for response in responses] == [429, 429, 200]
    assert responses[0].headers["retry-after"] == "1.5"


@pytest.mark.parametrize(("per", "statuses"), [("session", [500, 500]), ("prompt", [500, 200])])
async def test_tries_are_counted_in_a_session_or_for_the_prompt(http, per, statuses):
    body = _body(f"[[error status=500 times=1 per={per}]]")
    answers = [await http.post("/v1/messages", json={**body, "metadata": {"user_id": user}}) for user in ("a", "b")]

    assert [answer.status_code for answer in answers] == statuses


@pytest.mark.parametrize("stream", [True, False])
async def test_cuts_the_connection(http, stream):
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/v1/messages", json=_body("[[cut]]", stream=stream))


async def test_answers_whatever_else_a_client_asks(http):
    assert (await http.head("/")).status_code == 200
    assert (await http.get("/v1/models")).json()["data"]
    assert (await http.post("/v1/unheard/of")).json()["error"]["type"] == "not_found_error"


async def test_records_requests_without_their_key(http, server):
    await http.post("/v1/messages", json=_body("hello"), headers={"authorization": "Bearer sk-secret-1234"})
    recorded = (await http.get("/_requests")).json()

    assert [(request["method"], request["path"]) for request in recorded] == [("POST", "/v1/messages")]
    assert recorded[0]["body"]["messages"][0]["content"] == "hello"
    assert server.requests[0].headers["x-api-key"] == "***0001"
    assert server.requests[0].headers["authorization"] == "***1234"


async def test_stops_in_the_middle_of_a_silent_stream():
    async with ModelServer() as server, httpx.AsyncClient(headers=KEY, trust_env=False) as client:
        body = _body("[[silence seconds=60]]", stream=True)
        async with client.stream("POST", f"{server.url}/v1/messages", json=body) as response:
            assert "message_start" in await anext(response.aiter_text())
            leaving = asyncio.create_task(server.__aexit__(None, None, None))
            await asyncio.wait_for(leaving, 5)


async def test_runs_as_a_process_until_it_is_told_to_stop():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "codefleet_testkit.model_server", stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 15))
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.head(f"http://127.0.0.1:{ready['port']}/")
    process.terminate()

    assert ready["event"] == "ready"
    assert answer.status_code == 200
    assert await asyncio.wait_for(process.wait(), 15) == 0
