"""`ls`, `show` and `cancel`."""

from collections.abc import Iterator
from typing import Any

import click

from codefleet_cli.commands.base import ApiCommand, Session, print_json
from codefleet_cli.errors import CommandError, ExitCode

_LIMIT = 20
_LARGEST_PAGE = 100


@click.command(cls=ApiCommand)
@click.option("--status", multiple=True, metavar="STATE", help="Repeatable, or separated by commas.")
@click.option("--project", "project_id", metavar="ID")
@click.option("--type", "type_", metavar="TYPE")
@click.option("--executor", type=click.Choice(["claude", "cursor", "any"]))
@click.option("--tag", metavar="TAG")
@click.option("--limit", type=click.IntRange(min=1), default=_LIMIT, show_default=True, help="At most so many.")
@click.option("--all", "all_", is_flag=True, help="Every page.")
def ls(session: Session, *, status: tuple[str, ...], type_: str | None, limit: int, all_: bool, **query: Any) -> None:
    """List tasks, the latest first."""
    states = [state.strip() for words in status for state in words.split(",") if state.strip()]
    query |= {"status": states or None, "type": type_}
    data = _collect(_pages(session, query, None if all_ else limit))
    if session.as_json:
        print_json(data)
        return
    from codefleet_cli import render, text
    from codefleet_cli.model import Task, convert

    tasks = convert(data["items"], list[Task])
    if not tasks:
        click.echo("no tasks", err=True)
        return
    render.make_console().print(render.task_table(tasks, text.now()))
    if data["has_more"]:
        click.echo(f"{len(tasks)} of {data['total']}: see the others with --all or --limit", err=True)


@click.command(cls=ApiCommand)
@click.argument("task_id", metavar="ID")
def show(session: Session, *, task_id: str) -> None:
    """Show everything about a task."""
    from codefleet_cli.lookup import resolve_id

    task = session.api.get(f"/tasks/{resolve_id(session.api, task_id)}")
    if session.as_json:
        print_json(task)
        return
    from codefleet_cli import render, text
    from codefleet_cli.model import Task, convert

    render.make_console().print(render.task_page(convert(task, Task), text.now()))


@click.command(cls=ApiCommand)
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", help="Kept in the task's history.")
def cancel(session: Session, *, task_ids: tuple[str, ...], reason: str | None) -> int:
    """Cancel tasks.

    One that is running first stops its agent. With --json: a list, with one answer or error for each ID.
    """
    failures, answers = 0, []
    for given in task_ids:
        try:
            answers.append(_cancel(session, given, reason))
        except CommandError as error:
            if error.exit_code == ExitCode.UNREACHABLE:
                raise
            failures += 1
            answers.append(error.envelope())
            if not session.as_json:
                error.show()
    if session.as_json:
        print_json(answers)
    return ExitCode.REFUSED if failures else ExitCode.SUCCESS


def _cancel(session: Session, given: str, reason: str | None) -> dict[str, Any]:
    from codefleet_cli.lookup import resolve_id
    from codefleet_cli.text import clean

    task_id = resolve_id(session.api, given)
    task = dict(session.api.post(f"/tasks/{task_id}/cancel", {"reason": reason} if reason else {}))
    if not session.as_json:
        click.echo(f"{task_id} {clean(str(task.get('status', 'cancelling')))}")
    return task


def _pages(session: Session, query: dict[str, Any], limit: int | None) -> Iterator[dict[str, Any]]:
    """Pages until `limit` tasks have come (None: until there are no more)."""
    cursor = None
    while limit is None or limit > 0:
        size = min(limit or _LARGEST_PAGE, _LARGEST_PAGE)
        page = session.api.get("/tasks", **query, limit=size, cursor=cursor)
        yield page
        cursor = page.get("next_cursor")
        if not (page["has_more"] and cursor and page["items"]):
            return
        limit = None if limit is None else limit - len(page["items"])


def _collect(pages: Iterator[dict[str, Any]]) -> dict[str, Any]:
    first = next(pages)
    items, last = list(first["items"]), first
    for page in pages:
        items += page["items"]
        last = page
    more = {name: last.get(name) for name in ("has_more", "next_cursor")}
    return {**first, "items": items, **more, "limit": max(first["limit"], len(items))}
