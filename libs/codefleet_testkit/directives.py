r"""The language in which a prompt tells the doubles what to do: `[[name key=value …]]` anywhere in its text.

A value is a bare word (`path=HELLO.md`), a JSON string (`text="two\nlines"`) or a JSON object or array
(`input={"a": 1}`). Names that are not in the table below are left alone, so prose and shell tests may use brackets.
A known name with a wrong attribute raises `DirectiveError`.

Directives are carried out in the order in which they stand:

steps, one a turn
    write path text              writes a file
    read path                    reads a file (Claude Code wants that before it overwrites one)
    run command                  runs a shell command
    tool name input              calls any other tool, for instance one of an MCP server
                                 (each takes parallel=true: in the same turn as the step before it)
the last turn
    answer text words            says `text`, or `words` words of filler, instead of a summary
before the turn that follows
    error status retry_after message midstream
    slow seconds                 between two words
    silence seconds              after the first event of the turn
    cut                          the connection, or the process, ends in the middle
                                 (these take times=N: only for the first N tries, see `Fault`)
    usage input_tokens output_tokens
the Cursor double only, at their place
    thinking, query              event types that are reported but not documented
    emit event                   any event, for types nobody has heard of
    garbage text                 a line that is not JSON
    flood lines bytes            `lines` lines of `bytes` bytes
    newline_ids                  call ids contain a newline from here on
    rejected reason              the steps of the next turn are refused
    fail exit_code stderr        ends without a result event
    daemon seconds pid_file keeps_pipes
                                 a grandchild in its own session outlives the process
    ignore_sigterm               from the start, wherever it stands
    linger seconds               stays after the result event
    untrusted behaviour          `hang` or `exit` (with 0) when --trust is missing
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

import msgspec


class DirectiveError(ValueError):
    """A directive has a known name but is not well-formed."""


def _tag(class_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


class _Directive(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag=_tag):
    """One directive; a subclass's name in snake case is its name in a prompt, its fields are its attributes."""


class _Step(_Directive, frozen=True, kw_only=True):
    parallel: bool = False


class Write(_Step, frozen=True, kw_only=True):
    path: str
    text: str = ""


class Read(_Step, frozen=True, kw_only=True):
    path: str


class Run(_Step, frozen=True, kw_only=True):
    command: str


class Tool(_Step, frozen=True, kw_only=True):
    name: str
    input: dict[str, Any] = {}


Step = Write | Read | Run | Tool


class Answer(_Directive, frozen=True, kw_only=True):
    text: str = ""
    words: int = 0


class Fault(_Directive, frozen=True, kw_only=True):
    """Something that happens to the turn that follows.

    Args:
        times: happens to the first so many tries only; None for each.
        per: what a try belongs to: the same prompt in one `session` (default), or the `prompt` wherever it is sent.
        state: absolute path of the file in which the Cursor double, which forgets everything, counts tries.
    """

    times: int | None = None
    per: Literal["session", "prompt"] = "session"
    state: str = ""


class Error(Fault, frozen=True, kw_only=True):
    """The API refuses: at once, or (`midstream`) by an error event after the first one. `retry_after` is seconds."""

    status: int
    message: str = ""
    retry_after: float | None = None
    midstream: bool = False


class Slow(Fault, frozen=True, kw_only=True):
    seconds: float


class Silence(Fault, frozen=True, kw_only=True):
    seconds: float


class Cut(Fault, frozen=True, kw_only=True):
    pass


class Usage(_Directive, frozen=True, kw_only=True):
    input_tokens: int = 1_200
    output_tokens: int = 60


class Thinking(_Directive, frozen=True, kw_only=True):
    text: str = "Let me see."


class Query(_Directive, frozen=True, kw_only=True):
    text: str = "Which one?"


class Emit(_Directive, frozen=True, kw_only=True):
    event: dict[str, Any]


class Garbage(_Directive, frozen=True, kw_only=True):
    text: str = "Segmentation fault (not JSON) {"


class Flood(_Directive, frozen=True, kw_only=True):
    lines: int = 1
    bytes: int = 80


class NewlineIds(_Directive, frozen=True, kw_only=True):
    pass


class Rejected(_Directive, frozen=True, kw_only=True):
    reason: str = "Rejected by the user"


class Fail(Fault, frozen=True, kw_only=True):
    exit_code: int = 1
    stderr: str = "Error: something went wrong"


class Daemon(_Directive, frozen=True, kw_only=True):
    seconds: float = 60.0
    pid_file: str = ""
    keeps_pipes: bool = False


class IgnoreSigterm(_Directive, frozen=True, kw_only=True):
    pass


class Linger(_Directive, frozen=True, kw_only=True):
    seconds: float = 3_600.0


class Untrusted(_Directive, frozen=True, kw_only=True):
    behaviour: Literal["hang", "exit"] = "exit"


CursorOnly = (
    Thinking
    | Query
    | Emit
    | Garbage
    | Flood
    | NewlineIds
    | Rejected
    | Fail
    | Daemon
    | IgnoreSigterm
    | Linger
    | Untrusted
)
Directive = Step | Answer | Error | Slow | Silence | Cut | Usage | CursorOnly

_NAMES = "|".join(_tag(kind.__name__) for kind in get_args(Directive))
_OPENING = re.compile(rf"\[\[({_NAMES})(?=[\s\]]|\Z)")
_KEY = re.compile(r"\s*(\w+)=")
_CLOSING = re.compile(r"\s*\]\]")
_BARE = re.compile(r"[^\s\]]+")
_JSON = json.JSONDecoder(strict=False)


def parse(text: str) -> tuple[Directive, ...]:
    """The directives of a prompt, in order.

    Raises:
        DirectiveError: one of them is malformed; the message quotes it.
    """
    return tuple(_parse(text))


def _parse(text: str) -> Iterator[Directive]:
    position = 0
    while opening := _OPENING.search(text, position):
        try:
            attributes, position = _attributes(text, opening.end())
            yield msgspec.convert({"is": opening[1], **attributes}, type=Directive, strict=False)
        except ValueError as error:  # msgspec.ValidationError and json.JSONDecodeError are both one
            raise DirectiveError(f"{text[opening.start() : opening.start() + 80]!r}: {error}") from error


def _attributes(text: str, position: int) -> tuple[dict[str, Any], int]:
    attributes: dict[str, Any] = {}
    while not (closing := _CLOSING.match(text, position)):
        key = _KEY.match(text, position)
        if not key:
            raise DirectiveError("expected key=value or ]]")
        attributes[key[1]], position = _value(text, key.end())
    return attributes, closing.end()


def _value(text: str, position: int) -> tuple[Any, int]:
    if text.startswith(('"', "{", "["), position):
        return _JSON.raw_decode(text, position)
    bare = _BARE.match(text, position)
    return (bare[0], bare.end()) if bare else ("", position)
