"""What every command that talks to the server shares: its options, and how its failures are shown."""

from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codefleet_cli.connection import Server, find_server
from codefleet_cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from codefleet_cli.client import Api


class Session:
    """One run of a command: the server it was told to use, opened when first needed."""

    def __init__(self, *, url: str | None, api_key: str | None, data_dir: Path | None, as_json: bool) -> None:
        self.as_json = as_json
        self._find_server = partial(find_server, url=url, api_key=api_key, data_dir=data_dir)

    @cached_property
    def server(self) -> Server:
        """Raises NotConfiguredError when there is none."""
        return self._find_server()

    @cached_property
    def api(self) -> "Api":
        from codefleet_cli.client import Api

        return Api(self.server)

    def close(self) -> None:
        if "api" in self.__dict__:
            self.api.close()


class ApiCommand(click.Command):
    """A command whose function takes a Session first and returns its exit code, or None for 0."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options()

    def invoke(self, ctx: click.Context) -> None:
        shared = {name: ctx.params.pop(name) for name in ("url", "api_key", "data_dir", "as_json")}
        session = Session(**shared)
        ctx.params["session"] = session
        try:
            code = super().invoke(ctx)
        except CommandError as error:
            error.as_json = session.as_json
            raise
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
        finally:
            session.close()
        ctx.exit(int(code or 0))


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    import msgspec

    click.echo(msgspec.json.encode(data).decode())


def _shared_options() -> list[click.Parameter]:
    return [
        click.Option(["--url"], metavar="URL", help="The server, http://HOST:PORT. [CODEFLEET_URL]"),
        click.Option(["--api-key"], metavar="KEY", help="Seen by others in `ps`: better [CODEFLEET_API_KEY]."),
        click.Option(
            ["--data-dir"],
            type=click.Path(file_okay=False, path_type=Path),
            help="Use the server that `codefleet up` runs on this directory. [CODEFLEET_DATA_DIR]",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Machine-readable output."),
    ]
