"""The wire format of the Anthropic Messages API, as far as the stand-in speaks it.

Source: https://docs.anthropic.com/en/api/messages and https://docs.anthropic.com/en/api/messages-streaming
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from codefleet_testkit.programs import words

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_JSON_PIECE_CHARACTERS = 24
_BYTES_PER_TOKEN = 4

Event = Mapping[str, Any]


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[dict[str, Any]]

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """The content as blocks, however it was sent."""
        return [{"type": "text", "text": self.content}] if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """What is said, without tool results."""
        return "\n".join(block.get("text", "") for block in self.blocks if block.get("type") == "text")


class CountTokensRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversation consists of."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    system: str | list[dict[str, Any]] = ""
    tools: list[dict[str, Any]] = []

    @property
    def standing_tokens(self) -> int:
        """Estimated size of what is the same in each turn (system prompt and tools): the part a cache saves."""
        return _tokens([self.system, self.tools])

    @property
    def message_tokens(self) -> int:
        """Estimated size of the conversation so far."""
        return _tokens(self.messages)


class MessagesRequest(CountTokensRequest, frozen=True, kw_only=True):
    max_tokens: int
    stream: bool = False
    metadata: dict[str, Any] = {}


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    input: dict[str, Any]


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says in one turn: a text, then tool calls if any."""

    model: str
    text: str
    tool_uses: tuple[ToolUse, ...] = ()
    usage: TokenUsage

    @property
    def stop_reason(self) -> str:
        return "tool_use" if self.tool_uses else "end_turn"


def message(reply: Reply) -> dict[str, Any]:
    """The whole reply as one JSON object."""
    return {
        **_head(reply),
        "content": [
            {"type": "text", "text": reply.text},
            *({"type": "tool_use", **msgspec.to_builtins(tool_use)} for tool_use in reply.tool_uses),
        ],
        "stop_reason": reply.stop_reason,
        "usage": msgspec.to_builtins(reply.usage),
    }


def events(reply: Reply) -> Iterator[Event]:
    """The reply as the API streams it, message_start first and message_stop last."""
    first_usage = {**msgspec.to_builtins(reply.usage), "output_tokens": 1}
    yield {"type": "message_start", "message": {**_head(reply), "content": [], "usage": first_usage}}
    yield {"type": "ping"}
    yield from _text_block(reply.text)
    for index, tool_use in enumerate(reply.tool_uses, start=1):
        yield from _tool_use_block(index, tool_use)
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reply.stop_reason, "stop_sequence": None},
        "usage": {"output_tokens": reply.usage.output_tokens},
    }
    yield {"type": "message_stop"}


def error_body(status: int, text: str) -> dict[str, Any]:
    """An error in the API's shape, for a response's body and for a stream's `error` event alike."""
    kind = _ERROR_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": f"req_{uuid.uuid4().hex[:24]}"}


def server_sent(event: Event) -> bytes:
    """An event as bytes of a text/event-stream."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def estimate_tokens(text: str) -> int:
    """Roughly how many tokens a text has, at least one."""
    return len(text.encode()) // _BYTES_PER_TOKEN + 1


def _tokens(value: Any) -> int:
    return len(msgspec.json.encode(value)) // _BYTES_PER_TOKEN + 1


def _head(reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "stop_reason": None,
        "stop_sequence": None,
    }


def _text_block(text: str) -> Iterator[Event]:
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for word in words(text):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}


def _tool_use_block(index: int, tool_use: ToolUse) -> Iterator[Event]:
    start = {"type": "tool_use", "id": tool_use.id, "name": tool_use.name, "input": {}}
    yield {"type": "content_block_start", "index": index, "content_block": start}
    arguments = json.dumps(tool_use.input)
    for position in range(0, len(arguments), _JSON_PIECE_CHARACTERS):
        piece = arguments[position : position + _JSON_PIECE_CHARACTERS]
        delta = {"type": "input_json_delta", "partial_json": piece}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
