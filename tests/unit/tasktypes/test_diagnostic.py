import json
from pathlib import Path
from typing import Any

import pytest

from codefleet.domain.outcomes import Failed
from codefleet.domain.retry import RETRIABLE
from codefleet.tasktypes.context import RunStopped
from codefleet.tasktypes.diagnostic import DiagnosticParameters, run_diagnostic


class Context:
    """A run that goes on until `stop_after` calls have been made."""

    task_id = "task"
    epoch = 3

    def __init__(self, *, attempt: int = 1, stop_after: int = 10**9) -> None:
        self.attempt = attempt
        self.lines: list[str] = []
        self.percentages: list[float] = []
        self._left = stop_after

    def check(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise RunStopped

    async def log(self, text: str) -> None:
        self.check()
        self.lines.append(text)

    async def progress(self, percentage: float, *, step: str = "", details: Any = None) -> None:
        self.check()
        assert step
        assert details is None
        self.percentages.append(percentage)

    async def sleep(self, seconds: float) -> None:  # noqa: ARG002
        self.check()

    def allowed_path(self, path: str) -> Path:
        return Path(path)


async def test_it_writes_its_lines_and_says_how_far_it_is():
    context = Context()
    result = await run_diagnostic(context, DiagnosticParameters(output_lines=250, sleep_seconds=0.001, memory_mb=1))
    assert context.lines == [f"line {number} of 250" for number in range(1, 251)]
    assert context.percentages == sorted(context.percentages)
    assert all(0 <= percentage <= 100 for percentage in context.percentages)
    assert result["held_bytes"] == 1024 * 1024


@pytest.mark.parametrize(
    ("fail", "classes"),
    [("retriable", RETRIABLE), ("critical", {"system_failure"}), ("permanent", {"validation"})],
)
async def test_it_fails_as_often_as_it_is_told(fail: Any, classes: Any):
    for attempt, fails in ((1, True), (2, True), (3, False)):
        returned = await run_diagnostic(Context(attempt=attempt), DiagnosticParameters(fail=fail, fail_times=2))
        assert isinstance(returned, Failed) is fails
        assert not fails or returned.error_class in classes
    assert isinstance(await run_diagnostic(Context(attempt=99), DiagnosticParameters(fail=fail)), Failed)


async def test_its_effects_are_seen_from_outside(tmp_path: Path):
    effects = tmp_path / "effects"
    for _ in range(2):
        await run_diagnostic(Context(), DiagnosticParameters(effect_file=str(effects)))
    events = [json.loads(line) for line in effects.read_text().splitlines()]
    assert [event["event"] for event in events] == ["begin", "end"] * 2
    assert {(event["task_id"], event["epoch"]) for event in events} == {("task", 3)}


async def test_a_stopped_run_has_no_effect(tmp_path: Path):
    effects = tmp_path / "effects"
    with pytest.raises(RunStopped):
        await run_diagnostic(Context(stop_after=0), DiagnosticParameters(effect_file=str(effects)))
    assert not effects.exists()
