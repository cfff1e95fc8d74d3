"""`python -m codefleet.embedded up`: the command line of the embedded stack."""

import asyncio
import os
import sys
from pathlib import Path

import click

from codefleet.embedded.logs import LogFormat, StackLog
from codefleet.embedded.services import parse_scale
from codefleet.embedded.stack import StackOptions
from codefleet.embedded.up import serve
from codefleet.errors import CodefleetError


@click.group()
def main() -> None:
    """Runs codefleet on this machine."""


@main.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="CODEFLEET_DATA_DIR",
    default=Path(".codefleet"),
    show_default=True,
    help="Where the data, the remembered ports and connection.json live.",
)
@click.option("--port", type=click.IntRange(0, 65_535), help="Port of the API; 0: any free one.")
@click.option("--scale", multiple=True, metavar="SERVICE=N", help="How many processes of a service; repeatable.")
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    show_default=True,
    help="console: for people; json: the services' lines as they are.",
)
def up(data_dir: Path, port: int | None, scale: tuple[str, ...], log_format: LogFormat) -> None:
    """Starts MongoDB, Redis and the five services, and keeps them running until Ctrl-C."""
    try:
        options = StackOptions(data_dir=data_dir, port=port, scale=parse_scale(scale))
    except CodefleetError as error:
        print(f"codefleet up: {error.message}", file=sys.stderr)
        sys.exit(1)
    sys.exit(run(options, log_format))


def run(options: StackOptions, log_format: LogFormat = "console") -> int:
    """Runs a stack with its log on standard output, coloured on a terminal unless NO_COLOR is set."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    log = StackLog(_write_stdout, log_format=log_format, colour=colour)
    try:
        return asyncio.run(serve(options, log))
    finally:
        log.close()


def _write_stdout(data: bytes) -> None:
    # Not sys.stdout: its lock, held by a thread that a still terminal blocks, would abort the interpreter's exit.
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main(prog_name="codefleet")
