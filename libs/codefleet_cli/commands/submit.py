"""`run` and `submit`."""

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

import click

from codefleet_cli.commands.base import ApiCommand, Session, print_json
from codefleet_cli.errors import ExitCode

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-e", "--executor", type=click.Choice(["claude", "cursor", "any"]), help="Which agent works on it."),
    click.option("-t", "--type", "type_", metavar="TYPE", help="Kind of task.  [default: agent]"),
    click.option("-d", "--dir", "work_directory", metavar="DIR", help="Where it works.  [default: here]"),
    click.option("--name", help="A name for people."),
    click.option("--priority", metavar="LEVEL", help="1 (lowest) to 10, or a name such as high."),
    click.option("--project", "project_id", metavar="ID", help="The project it belongs to."),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="Repeatable."),
    click.option("-p", "--param", "parameters", multiple=True, metavar="KEY=JSON", help="A parameter; repeatable."),
    click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Its time limit."),
    click.option("--max-retries", type=click.IntRange(min=0), metavar="N", help="How often a failure is retried."),
    click.option("--idempotency-key", metavar="KEY", help="The same key submits the same task only once."),
    click.option("--file", metavar="FILE", help="The task as a JSON object; '-': standard input. Options override it."),
)


def task_options(command: F) -> F:
    """PROMPT and the options that make a task."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return click.argument("prompt", required=False)(command)


@click.command(cls=ApiCommand)
@task_options
@click.option("--detach", is_flag=True, help="Do not follow: the same as `submit`.")
def run(session: Session, *, detach: bool, **given: Any) -> int | None:
    """Submit a task and follow it to its end.

    PROMPT is what the agent is to do; '-', or nothing when something is piped in, reads it from standard input. The
    exit code is the task's outcome. Ctrl-C stops following, not the task. With --json: one event a line, the last one
    {"event": "end", "task": …}.
    """
    task = _submit(session, **given)
    if detach:
        _show_submitted(session, task)
        return None
    from codefleet_cli.commands.following import follow_shown
    from codefleet_cli.model import OUTCOMES

    finished = follow_shown(session, task["task_id"], submitted=task)
    return ExitCode.INTERRUPTED if finished is None else OUTCOMES[finished["status"]]


@click.command(cls=ApiCommand)
@task_options
def submit(session: Session, **given: Any) -> None:
    """Submit a task and print its id.

    PROMPT is as in `run`.
    """
    _show_submitted(session, _submit(session, **given))


def _submit(
    session: Session, *, prompt: str | None, file: str | None, idempotency_key: str | None, **options: Any
) -> dict[str, Any]:
    from codefleet_cli.submission import parse_parameters, parse_priority, task_body

    options["type"] = options.pop("type_")
    options["parameters"] = parse_parameters(options["parameters"])
    options["priority"] = parse_priority(options["priority"])
    body = task_body(prompt, file, options)
    # With a key of its own a request whose answer was lost can be sent again.
    return dict(session.api.post("/tasks", body, idempotency_key=idempotency_key or str(uuid4())))


def _show_submitted(session: Session, task: dict[str, Any]) -> None:
    if session.as_json:
        print_json(task)
    else:
        click.echo(task["task_id"])
