"""Following a task on the user's screen."""

from typing import Any

import click

from codefleet_cli.commands.base import Session
from codefleet_cli.display import choose_display
from codefleet_cli.follow import follow


def follow_shown(
    session: Session, task_id: str, *, submitted: dict[str, Any] | None = None, after: int = -1
) -> dict[str, Any] | None:
    """Shows a task until it is finished and returns it; None, after a hint, if the user presses Ctrl-C."""
    try:
        with choose_display(as_json=session.as_json) as display:
            if submitted:
                display.submitted(submitted)
            task = follow(session.server, task_id, display, after=after)
            display.end(task)
    except KeyboardInterrupt:
        hint = f"the task goes on; see it with `codefleet logs -f {task_id}`, stop it with `codefleet cancel {task_id}`"
        click.echo(f"\ncodefleet: detached, {hint}", err=True)
        return None
    return task
