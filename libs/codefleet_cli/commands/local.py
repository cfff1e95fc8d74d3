"""`up` and `demo`: the server on this machine, when it is installed."""

import os
import sys
from importlib.util import find_spec

import click

from codefleet_cli.errors import CommandError

# The first is the server, the others are what its extras bring: without them its modules are there but cannot run.
_SERVER = ("codefleet", "beanie", "dramatiq", "granian", "litestar", "motor")


class PassThrough(click.Command):
    """Leaves every argument, `--help` included, to the program that is started."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["arguments"] = tuple(args)
        return []


@click.command(cls=PassThrough, add_help_option=False)
def up(arguments: tuple[str, ...]) -> None:
    """Start a server on this machine: MongoDB, Redis and all services."""
    _replace_process("codefleet.embedded", ("up", *arguments), needs=_SERVER)


@click.command(cls=PassThrough, add_help_option=False)
def demo(arguments: tuple[str, ...]) -> None:
    """Run a few tasks on a server of their own, show what happens, stop everything."""
    _replace_process("codefleet_testkit.demo", arguments, needs=("codefleet_testkit", *_SERVER))


def _replace_process(module: str, arguments: tuple[str, ...], *, needs: tuple[str, ...]) -> None:
    if any(find_spec(name) is None for name in needs):
        raise CommandError("the server is not installed here", advice="pip install 'codefleet[all]'")
    sys.stdout.flush()
    # -P: a module of the same name in the current directory must not be taken for ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 - no shell is meant
