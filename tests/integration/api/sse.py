"""Reading server-sent events as a client does."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec


class Event(msgspec.Struct, kw_only=True):
    name: str
    data: Any
    id: str | None = None


async def events(response: httpx.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(name=fields["event"], data=json.loads(fields["data"]), id=fields.get("id"))
            fields = {}


async def all_events(client: httpx.AsyncClient, path: str, **headers: str) -> list[Event]:
    """Every event until the server ends the stream."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream("GET", path, headers=named) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [event async for event in events(response)]
