"""`logs`."""

from collections.abc import Iterator
from typing import Any

import click

from codefleet_cli.commands.base import ApiCommand, Session, print_json
from codefleet_cli.errors import ExitCode

_PAGE_LINES = 1000


@click.command(cls=ApiCommand)
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", "follow_", is_flag=True, help="Go on until the task is finished.")
@click.option("--after", type=int, default=-1, metavar="N", help="Begin after line N, as --json numbers them.")
def logs(session: Session, *, task_id: str, follow_: bool, after: int) -> int | None:
    """Print the log of a task.

    With -f and --json: JSON lines, first of the log and of the task's moves, last {"event": "end", "task": …}.
    """
    from codefleet_cli.lookup import resolve_id

    whole_id = resolve_id(session.api, task_id)
    if follow_:
        return _follow(session, whole_id, after)
    pages = _pages(session, whole_id, after)
    if session.as_json:
        print_json(_joined(pages))
    else:
        _print(pages)
    return None


def _follow(session: Session, task_id: str, after: int) -> int | None:
    from codefleet_cli.commands.following import follow_shown

    # A wrong id or a server that is away is said at once; only a stream that has begun is tried again.
    session.api.get(f"/tasks/{task_id}")
    finished = follow_shown(session, task_id, after=after)
    return ExitCode.INTERRUPTED if finished is None else None


def _pages(session: Session, task_id: str, after: int) -> Iterator[dict[str, Any]]:
    while True:
        page = session.api.get(f"/tasks/{task_id}/logs", after=after, limit=_PAGE_LINES)
        yield page
        if not page["has_more"]:
            return
        after = page["next_after"]


def _joined(pages: Iterator[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    items: list[Any] = []
    for page in pages:
        joined |= page
        items += page["items"]
    return {**joined, "items": items}


def _print(pages: Iterator[dict[str, Any]]) -> None:
    from codefleet_cli.model import LogEntry, convert
    from codefleet_cli.text import clean

    for page in pages:
        for entry in convert(page["items"], list[LogEntry]):
            click.echo(clean(entry.text))
