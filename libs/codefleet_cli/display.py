"""How a task that is being followed is shown: as JSON lines, as plain lines, or live on a terminal."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from codefleet_cli import text
from codefleet_cli.model import COLOURS, LogEntry, Move, Progress, Task, convert
from codefleet_cli.render import make_console, summary

_PLAIN_PROGRESS_SECONDS = 5.0


class JsonDisplay:
    """One JSON document a line on standard output: `{"event": NAME, …}`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submitted(self, task: dict[str, Any]) -> None:
        _write_json({"event": "submitted", "task": task})

    def log(self, entries: Sequence[dict[str, Any]]) -> None:
        _write_json(*({"event": "log", "log": entry} for entry in entries))

    def state(self, move: dict[str, Any]) -> None:
        _write_json({"event": "state", "state": move})

    def progress(self, progress: dict[str, Any]) -> None:
        _write_json({"event": "progress", "progress": progress})

    def notice(self, text_: str) -> None:
        print(f"codefleet: {text.clean(text_)}", file=sys.stderr)

    def end(self, task: dict[str, Any]) -> None:
        _write_json({"event": "end", "task": task})


class PlainDisplay:
    """The log and the summary on standard output, all else on standard error."""

    def __init__(self) -> None:
        self._progress_shown_at = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submitted(self, task: dict[str, Any]) -> None:
        self.notice(f"submitted {task['task_id']}")

    def log(self, entries: Sequence[dict[str, Any]]) -> None:
        print("\n".join(text.clean(convert(entry, LogEntry).text) for entry in entries), flush=True)

    def state(self, move: dict[str, Any]) -> None:
        self.notice(_move_words(convert(move, Move)))

    def progress(self, progress: dict[str, Any]) -> None:
        """Not every one: a log that is kept has no use for hundreds."""
        if time.monotonic() - self._progress_shown_at >= _PLAIN_PROGRESS_SECONDS:
            self._progress_shown_at = time.monotonic()
            self.notice(_progress_words(convert(progress, Progress)))

    def notice(self, text_: str) -> None:
        print(f"codefleet: {text.clean(text_)}", file=sys.stderr, flush=True)

    def end(self, task: dict[str, Any]) -> None:
        make_console().print(summary(convert(task, Task), text.now()), soft_wrap=True)


class LiveDisplay:
    """The log above a line that says how far the task is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner = Spinner("dots")
        self._status = "pending"
        self._progress = ""
        self._began = time.monotonic()
        self._live = Live(
            console=console,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._line,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def submitted(self, task: dict[str, Any]) -> None:
        self.notice(f"submitted {task['task_id']}")

    def log(self, entries: Sequence[dict[str, Any]]) -> None:
        lines = (_log_line(convert(entry, LogEntry)) for entry in entries)
        self._console.print(Text("\n").join(lines), soft_wrap=True)

    def state(self, move: dict[str, Any]) -> None:
        moved = convert(move, Move)
        if moved.to in {"retry", "waiting_confirmation", "paused"}:
            self.notice(_move_words(moved))
        self._status, self._progress = moved.to, ""

    def progress(self, progress: dict[str, Any]) -> None:
        self._progress = _progress_words(convert(progress, Progress))

    def notice(self, text_: str) -> None:
        self._console.print(Text(text.clean(text_), style="dim"), soft_wrap=True)

    def end(self, task: dict[str, Any]) -> None:
        self._live.stop()
        self._console.print(summary(convert(task, Task), text.now()), soft_wrap=True)

    def _line(self) -> Spinner:
        line = Text(text.clean(self._status), style=COLOURS.get(self._status, ""), overflow="ellipsis", no_wrap=True)
        line.append(f" {text.clean(self._progress)}" if self._progress else "", style="default")
        line.append(f" · {text.duration(time.monotonic() - self._began)} · Ctrl-C detaches", style="dim")
        self._spinner.update(text=line)
        return self._spinner


def choose_display(*, as_json: bool) -> JsonDisplay | PlainDisplay | LiveDisplay:
    if as_json:
        return JsonDisplay()
    console = make_console()
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay()


def _write_json(*documents: Any) -> None:
    lines = b"".join(msgspec.json.encode(document) + b"\n" for document in documents)
    print(lines.decode(), end="", flush=True)


def _log_line(entry: LogEntry) -> Text:
    return Text(text.clean(entry.text), style="yellow" if entry.stream == "stderr" else "")


def _move_words(move: Move) -> str:
    attempt = f"attempt {move.attempt}" if move.attempt else ""
    facts = ", ".join(fact for fact in (attempt, move.cause) if fact)
    return f"{move.to} ({facts})" if facts else move.to


def _progress_words(progress: Progress) -> str:
    step = str(progress.current_step or "")
    if step and progress.total_steps:
        step += f" of {progress.total_steps}"
    return f"{progress.percentage:.0f}% {step}".rstrip()
