"""A double of the Cursor CLI: speaks its documented protocol and, on demand, each fault reported of the real one.

    python -m codefleet_testkit.cursor_double -p PROMPT --output-format stream-json --trust [--force] …

The work is real (files are written, commands run), only the thinking is not: directives in the prompt say what to do,
see `codefleet_testkit.directives`. CURSOR_API_KEY may be anything but empty or `invalid`. Without --force a step is
refused, without --trust nothing is done.

Source: https://cursor.com/docs/cli/headless and https://cursor.com/docs/cli/reference/output-format
"""

import argparse
import os
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from codefleet_testkit.cursor_faults import Mood, happen
from codefleet_testkit.cursor_output import CursorOutput
from codefleet_testkit.cursor_tools import perform, tool_call
from codefleet_testkit.directives import Directive, DirectiveError, Fault, IgnoreSigterm, Linger, Step, Untrusted
from codefleet_testkit.programs import Program, Turn, compile_prompt, describe

_REFUSED_KEY = "invalid"
_HANG_SECONDS = 3_600.0
_NOT_FORCED = "Rejected: run with --force to allow it"


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs the double to its end.

    Raises:
        SystemExit: it ends otherwise than with a result event.
    """
    options = _options(arguments)
    if environment.get("CURSOR_API_KEY", "") in ("", _REFUSED_KEY):
        _fail("Error: Authentication required. Run 'agent login' first, or set CURSOR_API_KEY.")
    program = _program(options.prompt)
    if any(isinstance(directive, IgnoreSigterm) for directive in program.directives):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not options.trust:
        _without_trust(program.directives)
    _Agent(options, program).run()
    time.sleep(sum(directive.seconds for directive in program.directives if isinstance(directive, Linger)))


def write_cursor_shim(directory: Path) -> Path:
    """Puts an executable `cursor-agent` into `directory` that runs the double with this interpreter.

    Returns:
        Its path. It keeps its process id (exec) and does not import from the current directory.
    """
    shim = directory / "cursor-agent"
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m {__name__} "$@"\n')
    shim.chmod(0o755)
    return shim


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _fail(f"error: {message}")


class _Agent:
    """One print-mode run."""

    def __init__(self, options: argparse.Namespace, program: Program) -> None:
        self._program = program
        self._workspace = Path(options.workspace).resolve()
        self._model = options.model
        self._force = options.force
        self._output = CursorOutput(options.resume or str(uuid.uuid4()), partial=options.stream_partial_output)
        self._mood = Mood()
        self._failed_steps = 0

    def run(self) -> None:
        self._output.init(workspace=str(self._workspace), model=self._model)
        self._output.prompt(self._program.prompt)
        for turn in self._program.turns:
            self._play(turn)
        self._output.result(self._mood.usage)

    def _play(self, turn: Turn) -> None:
        self._mood.pause_seconds = 0.0
        self._mood.refusal = None if self._force else _NOT_FORCED
        for directive in turn.before:
            happen(directive, self._mood, self._output)
        if turn.steps:
            text = f"I will {' and '.join(describe(step) for step in turn.steps)}.\n"
        else:
            text = self._program.said_at_the_end(self._failed_steps)
        self._output.say(text, pause_seconds=self._mood.pause_seconds)
        for step in turn.steps:
            self._call(step)

    def _call(self, step: Step) -> None:
        call = tool_call(step)
        call_id = f"tool_{uuid.uuid4()}" + ("\nfc_0" if self._mood.newline_ids else "")
        self._output.tool_call(call_id, call.name, call.args)
        if self._mood.refusal is None:
            result = perform(step, self._workspace)
        else:
            result = {"rejected": {"reason": self._mood.refusal}}
        self._failed_steps += "success" not in result or result["success"].get("exitCode", 0) != 0
        self._output.tool_call(call_id, call.name, call.args, result)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="cursor-agent", allow_abbrev=False)
    parser.add_argument("-p", "--print", action="store_true", required=True)
    parser.add_argument("--output-format", choices=["stream-json"], required=True)
    parser.add_argument("--stream-partial-output", action="store_true")
    parser.add_argument("--trust", action="store_true")
    parser.add_argument("--force", "-f", action="store_true")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--workspace", default=".")
    parser.add_argument("--resume", default="")
    parser.add_argument("prompt")
    return parser.parse_args(arguments)


def _program(prompt: str) -> Program:
    try:
        program = compile_prompt(prompt)
    except DirectiveError as error:
        _fail(f"Error: malformed directive {error}")
    if any(isinstance(fault, Fault) and fault.times and not fault.state for fault in program.directives):
        _fail("Error: a directive with times needs state=FILE here, this process forgets everything")
    return program


def _without_trust(directives: Sequence[Directive]) -> NoReturn:
    if any(isinstance(directive, Untrusted) and directive.behaviour == "hang" for directive in directives):
        time.sleep(_HANG_SECONDS)
    raise SystemExit(0)


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
