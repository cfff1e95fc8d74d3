"""What `run` and `submit` send, made of options, a file and standard input."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from codefleet_cli.errors import InvalidInputError

MAX_INPUT_BYTES = 2 * 2**20
"""The server takes no larger request."""
_STDIN = "-"
_AGENT = "agent"


def task_body(prompt: str | None, file: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the request: what the file says, then what the options say instead.

    Args:
        prompt: the prompt itself, `-` for standard input, or None: standard input if it is not a terminal and the
            task needs a prompt.
        options: the API's fields; those that are None or empty were not given.

    Raises:
        InvalidInputError: something given cannot be read, or a prompt is missing.
    """
    if prompt == _STDIN and file == _STDIN:
        raise InvalidInputError("prompt and file cannot both come from standard input")
    body = _read_file(file) if file else {}
    body |= {name: value for name, value in options.items() if value not in (None, (), [], {})}
    words = _prompt(prompt, body)
    if words:
        body["prompt"] = words
    if "work_directory" in body:
        body["work_directory"] = str(Path(str(body["work_directory"])).expanduser().absolute())
    elif _needs_prompt(body):
        body["work_directory"] = str(Path.cwd())
    return body


def parse_parameters(pairs: Iterable[str]) -> dict[str, Any]:
    """`KEY=JSON` pairs; a value that is not JSON and does not look like it is text."""
    return dict(_parameter(pair) for pair in pairs)


def parse_priority(value: str | None) -> int | str | None:
    """A level stays a number; a name is the server's to know."""
    return int(value) if value is not None and value.isascii() and value.isdigit() else value


def _parameter(pair: str) -> tuple[str, Any]:
    name, equals, value = pair.partition("=")
    if not (name and equals):
        raise InvalidInputError(f"parameter {pair!r} is not KEY=JSON")
    try:
        return name, json.loads(value)
    except ValueError as error:
        if value[:1] in {"{", "[", '"'}:
            raise InvalidInputError(f"parameter {name} is not JSON ({error})") from error
        return name, value


def _needs_prompt(body: Mapping[str, Any]) -> bool:
    return bool(body.get("type", _AGENT) == _AGENT)


def _prompt(prompt: str | None, body: Mapping[str, Any]) -> str:
    if prompt is not None and prompt != _STDIN:
        return prompt
    known = bool(body.get("prompt") or body.get("command"))
    if prompt is None and (known or not _needs_prompt(body)):
        return ""
    if prompt is None and (sys.stdin is None or sys.stdin.isatty()):
        raise InvalidInputError("no prompt", advice="give it as an argument, or pipe it in")
    words = _read(sys.stdin.buffer, "standard input").rstrip("\r\n")
    if not words.strip():
        raise InvalidInputError("no prompt: standard input is empty", advice="give it as an argument, or pipe it in")
    return words


def _read_file(file: str) -> dict[str, Any]:
    source = "standard input" if file == _STDIN else file
    try:
        if file == _STDIN:
            content = json.loads(_read(sys.stdin.buffer, source))
        else:
            with Path(file).open("rb") as opened:
                content = json.loads(_read(opened, source))
    except OSError as error:
        raise InvalidInputError(f"{source}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInputError(f"{source} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"{source} is not a JSON object")
    return content


def _read(stream: BinaryIO, source: str) -> str:
    content = stream.read(MAX_INPUT_BYTES + 1)
    if len(content) > MAX_INPUT_BYTES:
        raise InvalidInputError(f"{source} has more than {MAX_INPUT_BYTES // 2**20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{source} is not UTF-8 text") from error
