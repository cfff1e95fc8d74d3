"""What may go wrong in the Cursor double, one function for all of it: `happen`."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import msgspec

from codefleet_testkit.cursor_output import CursorOutput
from codefleet_testkit.directives import (
    Cut,
    Daemon,
    Directive,
    Emit,
    Error,
    Fail,
    Fault,
    Flood,
    Garbage,
    NewlineIds,
    Query,
    Rejected,
    Silence,
    Slow,
    Thinking,
    Usage,
)


class Mood(msgspec.Struct, kw_only=True):
    """What faults leave behind. `pause_seconds` and `refusal` hold for one turn, the rest for good."""

    pause_seconds: float = 0.0
    refusal: str | None = None
    newline_ids: bool = False
    usage: Usage | None = None


def happen(directive: Directive, mood: Mood, output: CursorOutput) -> None:
    """Lets the directive's effect happen: at once, or by changing the mood.

    Raises:
        SystemExit: the directive ends the process.
    """
    if isinstance(directive, Fault) and not _is_due(directive):
        return
    match directive:
        case Slow():
            mood.pause_seconds = directive.seconds
        case Rejected():
            mood.refusal = directive.reason
        case NewlineIds():
            mood.newline_ids = True
        case Usage():
            mood.usage = directive
        case Silence():
            time.sleep(directive.seconds)
        case Daemon():
            _leave_daemon(directive)
        case Cut() | Error() | Fail():
            _end(directive, output)
        case Thinking() | Query() | Emit() | Garbage() | Flood():
            _print(directive, output)
        case _:
            pass  # it concerns the start or the end of the process, not a turn


def _is_due(fault: Fault) -> bool:
    """Whether the fault happens in this try; tries are counted in the lines of its state file."""
    if fault.times is None:
        return True
    tries = Path(fault.state)
    tried = len(tries.read_text().splitlines()) if tries.exists() else 0
    with tries.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return tried < fault.times


def _end(directive: Cut | Error | Fail, output: CursorOutput) -> NoReturn:
    match directive:
        case Cut():
            output.fragment('{"type":"assistant","message":{"role":"assi')
            raise SystemExit(1)
        case Error():
            sys.stderr.write(f"Error: {directive.message or 'the model is not available'} ({directive.status})\n")
            raise SystemExit(1)
        case Fail():
            sys.stderr.write(f"{directive.stderr}\n")
            raise SystemExit(directive.exit_code)


def _print(directive: Thinking | Query | Emit | Garbage | Flood, output: CursorOutput) -> None:
    match directive:
        case Thinking():
            output.event(type="thinking", subtype="delta", text=directive.text)
            output.event(type="thinking", subtype="completed")
        case Query():
            output.event(type="interaction_query", subtype="request", query={"question": directive.text})
            output.event(type="interaction_query", subtype="response", response={"rejected": {"reason": "print mode"}})
        case Emit():
            output.event(**directive.event)
        case Garbage():
            output.line(directive.text)
        case Flood():
            for _ in range(directive.lines):
                output.line("x" * (directive.bytes - 1))


def _leave_daemon(daemon: Daemon) -> None:
    """Starts a grandchild in a session of its own; its parent is gone when this returns."""
    note = f"echo $! > '{daemon.pid_file}'" if daemon.pid_file else ":"
    pipe = None if daemon.keeps_pipes else subprocess.DEVNULL
    command = ["/bin/sh", "-c", f"sleep {daemon.seconds} & {note}"]
    subprocess.run(command, start_new_session=True, stdin=pipe, stdout=pipe, stderr=pipe, check=True)
