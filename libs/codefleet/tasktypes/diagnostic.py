"""The `diagnostic` task type: exercises the whole system without an agent and without cost."""

import json
import os
import time
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from codefleet.domain.outcomes import Failed
from codefleet.domain.retry import ErrorClass
from codefleet.tasktypes.context import TaskContext

_LINES_PER_STEP = 100
_ERROR_CLASS = {
    "retriable": ErrorClass.TEMPORARY,
    "permanent": ErrorClass.VALIDATION,
    "critical": ErrorClass.SYSTEM_FAILURE,
}


class DiagnosticParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a diagnostic task does.

    Args:
        sleep_seconds: how long it takes.
        output_lines: how many lines it writes to its log.
        fail: how it fails, if it does.
        fail_times: how many attempts fail before one succeeds; 0: every attempt fails.
        memory_mb: how much memory it holds while it sleeps.
        effect_file: a file to which it appends one JSON line when it begins and one when it ends, for an observer
            outside the system who counts runs.
    """

    sleep_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    output_lines: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    fail: Literal["none", "retriable", "permanent", "critical"] = "none"
    fail_times: Annotated[int, Meta(ge=0, le=1000)] = 0
    memory_mb: Annotated[int, Meta(ge=0, le=4096)] = 0
    effect_file: str = ""


async def run_diagnostic(context: TaskContext, parameters: DiagnosticParameters) -> Any:
    """Does what the parameters say and returns what it did."""
    _note(context, parameters, "begin")
    held = bytearray(parameters.memory_mb * 1024 * 1024)
    await _write_lines(context, parameters.output_lines)
    await _sleep(context, parameters.sleep_seconds)
    _note(context, parameters, "end")
    if parameters.fail != "none" and (parameters.fail_times == 0 or context.attempt <= parameters.fail_times):
        return Failed(
            error_class=_ERROR_CLASS[parameters.fail],
            code="DIAGNOSTIC_FAILURE",
            message=f"Attempt {context.attempt} failed as its parameters say",
        )
    return {
        "attempt": context.attempt,
        "output_lines": parameters.output_lines,
        "slept_seconds": parameters.sleep_seconds,
        "held_bytes": len(held),
    }


async def _write_lines(context: TaskContext, count: int) -> None:
    for number in range(1, count + 1):
        await context.log(f"line {number} of {count}")
        if number % _LINES_PER_STEP == 0:
            await context.progress(50 * number / count, step=f"{number} of {count} lines")


async def _sleep(context: TaskContext, seconds: float) -> None:
    if not seconds:
        return
    started = time.monotonic()
    while (left := started + seconds - time.monotonic()) > 0:
        await context.sleep(min(left, 1.0))
        done = min(1.0, (time.monotonic() - started) / seconds)
        await context.progress(50 + 50 * done, step=f"slept {seconds * done:.0f} of {seconds:g} s")


def _note(context: TaskContext, parameters: DiagnosticParameters, event: str) -> None:
    if not parameters.effect_file:
        return
    context.check()
    line = {
        "task_id": context.task_id,
        "epoch": context.epoch,
        "attempt": context.attempt,
        "event": event,
        "at": time.time(),
        "pid": os.getpid(),
    }
    # One short write with O_APPEND is atomic: lines of many processes do not mix.
    descriptor = os.open(context.allowed_path(parameters.effect_file), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)
