"""Tables and pages for people, as rich renderables. Text that comes from tasks is cleaned and never read as markup."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from codefleet_cli import text
from codefleet_cli.model import COLOURS, Attempt, Move, Task, TaskError, Usage, convert, result_text

_UNBOUNDED_WIDTH = 10_000
_SHORTEST_ID = 8
_NAME_WIDTH = 40
_PROMPT_CHARACTERS = 2_000
_TIME = "_at"


def make_console(*, stderr: bool = False) -> Console:
    """Standard output or error. Lines are cut only where a person looks: a pipe gets them whole. Heeds NO_COLOR."""
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=_UNBOUNDED_WIDTH)
    return console


def status_text(status: str) -> Text:
    return Text(text.clean(status), style=COLOURS.get(status, ""))


def id_length(ids: Iterable[str]) -> int:
    """How many characters tell these ids apart, at least 8. Ids begin with a time, so neighbours look alike."""
    ordered = sorted(set(ids))
    longest = max((_shared(a, b) for a, b in itertools.pairwise(ordered)), default=0)
    return max(_SHORTEST_ID, longest + 1)


def task_table(tasks: Sequence[Task], now: datetime) -> Table:
    table = _table("ID", "NAME", "STATUS", "EXECUTOR")
    # Where room is short the name gives way, never the id.
    table.columns[1].no_wrap, table.columns[1].max_width = False, _NAME_WIDTH
    for title in ("PRIO", "AGE", "DURATION", "PROGRESS"):
        table.add_column(title, justify="right", no_wrap=True)
    length = id_length(task.task_id for task in tasks)
    for task in tasks:
        table.add_row(
            _plain(task.task_id[:length]),
            Text(_plain(task.name).plain, no_wrap=True, overflow="ellipsis"),
            status_text(task.status),
            _plain(task.executor),
            _plain(task.priority),
            _plain(text.age(task.created_at, now)),
            _plain(text.duration(task.ran_seconds(now))),
            _plain(_percentage(task)),
        )
    return table


def task_page(task: Task, now: datetime) -> RenderableType:
    """Everything about a task that is worth reading."""
    parts: list[RenderableType] = [_fields(task, now)]
    sections: Sequence[tuple[str, Callable[[Task], RenderableType | None]]] = (
        ("Prompt", _prompt),
        ("Timeline", lambda task: _timeline(task.history or [])),
        ("Attempts", lambda task: _attempts(task.attempts or [])),
        ("Error", lambda task: error_text(task.error) if task.error else None),
        ("Result", lambda task: _block(result_text(task.result))),
    )
    for title, render in sections:
        if (part := render(task)) is not None:
            parts += [Text(f"\n{title}", style="bold"), part]
    return Group(*parts)


def error_text(error: TaskError) -> Text:
    """`class: message`, and the advice on a line of its own."""
    shown = Text(text.clean(f"{error.class_}: {error.message}", multiline=True), style="red")
    if error.advice:
        shown.append(f"\nadvice: {text.clean(error.advice)}", style="yellow")
    return shown


def summary(task: Task, now: datetime) -> RenderableType:
    """The last words about a followed task: state, time, tokens, cost; then its result or its error."""
    good = task.status == "success"
    ran_seconds = task.ran_seconds(now)
    took = [] if ran_seconds is None else [text.duration(ran_seconds)]
    facts = [task.status, *took, *usage_facts(task.usage)]
    head = Text(f"{'✓' if good else '✗'} {text.clean(' · '.join(facts))}", style=COLOURS.get(task.status, "bold"))
    head.append(f" · {task.task_id}", style="dim")
    body = error_text(task.error) if task.error and not good else _block(result_text(task.result))
    return Group(head, body) if body is not None else head


def usage_facts(usage: Usage | None) -> list[str]:
    if usage is None:
        return []
    facts = []
    if usage.input_tokens or usage.output_tokens:
        facts.append(f"{text.count(usage.input_tokens)} tokens in, {text.count(usage.output_tokens)} out")
    if usage.cost_usd:
        facts.append(text.money(usage.cost_usd))
    return facts


def plain_table(items: Sequence[Mapping[str, Any]], now: datetime) -> Table:
    """Rows as the server gives them: one column for each field, in the order in which fields appear.

    A field `…_at` holds a time and is shown as how long ago that is.
    """
    names = list(dict.fromkeys(name for item in items for name in item))
    table = _table(*(name.upper().removesuffix(_TIME.upper()) for name in names))
    for column, name in zip(table.columns, names, strict=True):
        column.justify = "right" if name.endswith(_TIME) else "left"
    for item in items:
        table.add_row(*(_cell(name, item.get(name), now) for name in names))
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(_plain(title), no_wrap=True)
    return table


def _shared(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _plain(value: object) -> Text:
    return Text("-" if value is None or value == "" else text.clean(str(value)))


def _value(value: Any) -> Text:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return _plain(", ".join(value))
    if isinstance(value, dict | list):
        return _plain(msgspec.json.encode(value).decode())
    return status_text(value) if isinstance(value, str) else _plain(value)


def _cell(name: str, value: Any, now: datetime) -> Text:
    if value is None or not name.endswith(_TIME):
        return _value(value)
    return _plain(f"{text.age(convert(value, datetime), now)} ago")


def _percentage(task: Task) -> str:
    return f"{task.progress.percentage:.0f}%" if task.progress and task.started_at else "-"


def _fields(task: Task, now: datetime) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(task, now):
        table.add_row(_plain(name), value)
    return table


def _facts(task: Task, now: datetime) -> list[tuple[str, Text]]:
    command = " ".join([task.command, *(task.args or [])]) if task.command else ""
    retries = f"{task.retry_count} of {task.max_retries} retries" if task.max_retries is not None else ""
    facts: list[tuple[str, object]] = [
        ("name", task.name),
        ("type", task.type),
        ("executor", task.executor),
        ("priority", task.priority),
        ("directory", task.work_directory),
        ("command", command),
        ("project", task.project_id),
        ("user", task.user_id),
        ("tags", ", ".join(task.tags or [])),
        ("parameters", msgspec.json.encode(task.parameters).decode() if task.parameters else ""),
        ("created", text.local_time(task.created_at)),
        ("duration", text.duration(task.ran_seconds(now))),
        ("time limit", text.duration(task.timeout)),
        ("retries", retries),
        ("worker", task.worker_id),
        ("progress", " ".join([_percentage(task), *_step(task)])),
        ("usage", " · ".join(_resources(task.usage))),
    ]
    shown = [(name, _plain(value)) for name, value in facts if value not in {None, "", "-"}]
    return [("task", _plain(task.task_id)), ("status", status_text(task.status)), *shown]


def _step(task: Task) -> list[str]:
    step = task.progress.current_step if task.progress else None
    return [str(step)] if step else []


def _resources(usage: Usage | None) -> list[str]:
    facts = usage_facts(usage)
    if usage and usage.cpu_seconds:
        facts.append(f"{text.duration(usage.cpu_seconds)} of CPU")
    if usage and usage.max_memory_bytes:
        facts.append(f"{text.mebibytes(usage.max_memory_bytes)} at most")
    return facts


def _prompt(task: Task) -> Text | None:
    prompt = task.prompt or ""
    shown = _block(prompt[:_PROMPT_CHARACTERS])
    if shown is not None and len(prompt) > _PROMPT_CHARACTERS:
        shown.append(f"\n… {len(prompt) - _PROMPT_CHARACTERS} more characters: see --json", style="dim")
    return shown


def _block(content: str) -> Text | None:
    content = text.clean(content, multiline=True).strip("\n")
    return Text(content) if content else None


def _timeline(moves: Sequence[Move]) -> Table | None:
    if not moves:
        return None
    table = _table("TIME", "STATUS", "ATTEMPT", "BY", "CAUSE")
    for move in moves:
        table.add_row(
            _plain(text.local_time(move.at)),
            status_text(move.to),
            _plain(move.attempt),
            _plain(move.actor),
            _plain(move.cause),
        )
    return table


def _attempts(attempts: Sequence[Attempt]) -> Table | None:
    if not attempts:
        return None
    table = _table("ATTEMPT", "WORKER", "STARTED", "DURATION", "OUTCOME", "EXIT", "USAGE", "ERROR")
    for attempt in attempts:
        table.add_row(
            _plain(attempt.number),
            _plain(attempt.worker_id),
            _plain(text.local_time(attempt.started_at)),
            _plain(_attempt_duration(attempt)),
            _plain(attempt.outcome),
            _plain(attempt.exit_code),
            _plain(" · ".join(usage_facts(attempt.usage))),
            _plain(f"{attempt.error.class_}: {attempt.error.message}" if attempt.error else None),
        )
    return table


def _attempt_duration(attempt: Attempt) -> str:
    if attempt.started_at is None or attempt.ended_at is None:
        return "-"
    return text.duration((attempt.ended_at - attempt.started_at).total_seconds())
