"""The `codefleet` command."""

import io
import sys

import click

from codefleet_cli.commands.doctor import doctor
from codefleet_cli.commands.fleet import queues, workers
from codefleet_cli.commands.local import demo, up
from codefleet_cli.commands.logs import logs
from codefleet_cli.commands.submit import run, submit
from codefleet_cli.commands.tasks import cancel, ls, show

# A lone \b keeps click from joining the lines of the paragraph that follows.
_HELP = """Run AI coding agents as dependable background jobs.

\b
The server is, in this order:
  --url and --api-key, or the file of --data-dir
  CODEFLEET_URL and CODEFLEET_API_KEY
  connection.json in CODEFLEET_DATA_DIR, or in .codefleet here or above

\b
Exit codes:
  0    success
  1    the task failed, or a check of `doctor`
  2    wrong usage, or the server refused
  3    the server cannot be reached, or failed
  4    the task was cancelled
  5    the task timed out
  130  interrupted

\b
Completion: eval "$(_CODEFLEET_COMPLETE=bash_source codefleet)"
(or zsh_source, fish_source). NO_COLOR=1 turns colours off.
"""


class OrderedGroup(click.Group):
    """Lists its commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


@click.group(cls=OrderedGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="codefleet")
def cli() -> None:
    pass


for _command in (up, demo, run, submit, ls, show, logs, cancel, doctor, queues, workers):
    cli.add_command(_command)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without Unicode gets question marks, not a traceback.
            stream.reconfigure(errors="replace")
    cli(prog_name="codefleet")
