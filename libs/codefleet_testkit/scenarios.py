"""What the stand-in model answers: a pure function from the conversation so far to the next turn.

The program is that of the last user message with directives; tool results after it say how far it has come. So a
conversation that is resumed goes on where it was, and a new prompt without directives, once all is done, is greeted.
"""

import re
from pathlib import PurePosixPath
from typing import Any

import msgspec

from codefleet_testkit.directives import Read, Run, Step, Tool, Usage, Write, parse
from codefleet_testkit.messages_api import Message, MessagesRequest, Reply, TokenUsage, ToolUse, estimate_tokens
from codefleet_testkit.programs import Program, Turn, compile_prompt, describe, greeting

_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_WORKING_DIRECTORY = re.compile(r"[Ww]orking directory: (/[^\n]*)")


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a conversation stands.

    Args:
        number: of the turn that comes next, from 0.
        turn: what comes next; without steps it is the final answer.
        failed_steps: how many tool results so far are errors.
        finished: the program has had its last word already and something else was asked since.
    """

    program: Program
    number: int
    turn: Turn
    failed_steps: int
    finished: bool


def locate(messages: list[Message]) -> Position:
    """Finds the program in a conversation and how much of it is done.

    Raises:
        DirectiveError: a directive is malformed.
    """
    start = _prompt_index(messages)
    program = compile_prompt(_said(messages[start]))
    results = [block for message in messages[start + 1 :] for block in message.blocks if _is_tool_result(block)]
    number, done = 0, len(results)
    while program.turns[number].steps and done >= len(program.turns[number].steps):
        done -= len(program.turns[number].steps)
        number += 1
    return Position(
        program=program,
        number=number,
        turn=program.turns[number],
        failed_steps=sum(bool(block.get("is_error")) for block in results),
        finished=not program.turns[number].steps and _asked_again(messages[start + 1 :]),
    )


def reply_to(request: MessagesRequest, position: Position) -> Reply:
    """The model's next turn at `position` of the request's conversation."""
    tool_uses = () if position.finished else _tool_uses(request, position.turn)
    missing = [step for step, use in zip(position.turn.steps, tool_uses, strict=True) if use is None]
    calls = () if missing else tuple(use for use in tool_uses if use)
    text = _text(request, position, missing)
    return Reply(model=request.model, text=text, tool_uses=calls, usage=_usage(request, position, text, calls))


def _text(request: MessagesRequest, position: Position, missing: list[Step]) -> str:
    if position.finished:
        return greeting(_said(_last_prompt(request.messages)))
    if missing:
        return f"I cannot {describe(missing[0])}: I was given no tool for it."
    if position.turn.steps:
        return f"I will {' and '.join(describe(step) for step in position.turn.steps)}."
    return position.program.said_at_the_end(position.failed_steps)


def _usage(request: MessagesRequest, position: Position, text: str, calls: tuple[ToolUse, ...]) -> TokenUsage:
    for usage in position.turn.before:
        if isinstance(usage, Usage):
            return TokenUsage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    first = len(request.messages) <= 1 or position.number == 0
    return TokenUsage(
        input_tokens=request.message_tokens,
        output_tokens=estimate_tokens(text + "".join(str(call.input) for call in calls)),
        cache_creation_input_tokens=request.standing_tokens if first else 0,
        cache_read_input_tokens=0 if first else request.standing_tokens,
    )


def _tool_uses(request: MessagesRequest, turn: Turn) -> tuple[ToolUse | None, ...]:
    """One call a step, None where the request offers no tool for it."""
    directory = _working_directory(request)
    offered = {tool.get("name") for tool in request.tools}
    calls: list[ToolUse | None] = []
    for index, step in enumerate(turn.steps):
        shapes = (shape for shape in _call_shapes(step, directory) if shape[0] in offered)
        name, arguments = next(shapes, (None, {}))
        call_id = f"toolu_{len(request.messages):04}_{index}"
        calls.append(ToolUse(id=call_id, name=name, input=arguments) if name else None)
    return tuple(calls)


def _call_shapes(step: Step, directory: PurePosixPath) -> list[tuple[str, dict[str, Any]]]:
    """How the step is asked for: of Claude Code's tools, then of the API's own text editor and bash tools."""
    match step:
        case Write():
            path = str(directory / step.path)
            create = {"command": "create", "path": path, "file_text": step.text}
            return [
                ("Write", {"file_path": path, "content": step.text}),
                ("str_replace_based_edit_tool", create),
            ]
        case Read():
            path = str(directory / step.path)
            return [("Read", {"file_path": path}), ("str_replace_based_edit_tool", {"command": "view", "path": path})]
        case Run():
            described = {"command": step.command, "description": "Run the command of the directive"}
            return [("Bash", described), ("bash", {"command": step.command})]
        case Tool():
            return [(step.name, step.input)]


def _prompt_index(messages: list[Message]) -> int:
    prompts = [index for index, message in enumerate(messages) if message.role == "user" and message.text]
    with_directives = [index for index in prompts if parse(_said(messages[index]))]
    return (with_directives or prompts or [0])[-1]


def _last_prompt(messages: list[Message]) -> Message:
    return next(message for message in reversed(messages) if message.role == "user")


def _asked_again(messages: list[Message]) -> bool:
    """Whether the last word in `messages` is a prompt, not a tool result."""
    last = next((message for message in reversed(messages) if message.role == "user"), None)
    return last is not None and bool(_spoken(last)) and not any(map(_is_tool_result, last.blocks))


def _said(message: Message) -> str:
    """A message's text; Claude Code hands over what is sent during a turn inside a reminder, so that counts too."""
    return _spoken(message) or message.text


def _spoken(message: Message) -> str:
    return _REMINDER.sub("", message.text).strip()


def _is_tool_result(block: dict[str, Any]) -> bool:
    return block.get("type") == "tool_result"


def _working_directory(request: MessagesRequest) -> PurePosixPath:
    """Where the agent works, as Claude Code tells it in the system prompt or a system message; `.` if it is silent."""
    system = Message(role="system", content=request.system)
    texts = [system.text, *(message.text for message in request.messages if message.role == "system")]
    found = _WORKING_DIRECTORY.findall("\n".join(texts))
    return PurePosixPath(found[-1].strip() if found else ".")
