"""`queues` and `workers`."""

from typing import Any

import click

from codefleet_cli.commands.base import ApiCommand, Session, print_json


@click.command(cls=ApiCommand)
def queues(session: Session) -> None:
    """List the queues."""
    _show(session, session.api.get("/queues"))


@click.command(cls=ApiCommand)
def workers(session: Session) -> None:
    """List the workers."""
    _show(session, session.api.get("/workers"))


def items_of(data: Any) -> list[dict[str, Any]]:
    """The rows of a list, whether it comes in pages or not."""
    return list(data["items"] if isinstance(data, dict) else data)


def _show(session: Session, data: Any) -> None:
    if session.as_json:
        print_json(data)
        return
    from codefleet_cli import render, text

    items = items_of(data)
    if not items:
        click.echo("none", err=True)
        return
    render.make_console().print(render.plain_table(items, text.now()))
