"""`codefleet demo`: a whole codefleet for a few seconds, and two agents at work in a sample repository.

    python -m codefleet_testkit.demo [--keep]

Exits with 0 only if both tasks succeeded. Everything runs on loopback ports and in one temporary directory, and is gone
at the end, after Ctrl-C too.
"""

import argparse
import asyncio
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console
from rich.text import Text

from codefleet.embedded import Stack, StackOptions
from codefleet.embedded.data_directory import Connection
from codefleet.embedded.logs import StackLog
from codefleet.errors import CodefleetError
from codefleet_testkit.demo_agents import Cast, choose_cast
from codefleet_testkit.demo_repository import DEMO_TASKS, DemoTask, SampleRepository
from codefleet_testkit.model_server import ModelServer

_INTERRUPTED = 130
_SHOWN_CHARACTERS = 80
_CLI = (sys.executable, "-P", "-m", "codefleet_cli")


class Demo:
    """One performance, in `directory`, which is empty at first."""

    def __init__(self, directory: Path, console: Console) -> None:
        self._directory = directory
        self._console = console
        self._repository = SampleRepository(directory / "shop")

    async def play(self, environ: Mapping[str, str]) -> bool:
        """Whether both tasks succeeded.

        Raises:
            CodefleetError: the services do not start; the message says why.
        """
        async with AsyncExitStack() as stage:
            server = await stage.enter_async_context(ModelServer())
            cast = choose_cast(environ, self._directory, server.url)
            self._introduce(cast)
            await self._repository.create()
            connection = await self._start(cast, stage)
            codes = [await self._show(task, cast, connection) for task in DEMO_TASKS]
            self._headline("Both tasks")
            self._say_command("ls")
            await self._codefleet(["ls"], connection)
            self._say("\nStopping everything …", style="dim")
        return not any(codes)

    def _introduce(self, cast: Cast) -> None:
        self._headline("codefleet demo")
        for agent, told in cast.told.items():
            self._say(Text.assemble((f"{agent:<16}", "bold"), told))
        self._say(Text.assemble((f"{'Repository':<16}", "bold"), str(self._repository.directory)))

    async def _start(self, cast: Cast, stage: AsyncExitStack) -> Connection:
        self._say("\nStarting MongoDB, Redis and the services …", style="dim")
        began = time.monotonic()
        log = StackLog(_appender(self._directory / "services.log"))
        stage.callback(log.close)
        options = StackOptions(
            data_dir=self._directory / "data",
            port=0,
            environ={**cast.environment, "CODEFLEET_WORK_ROOTS": str(self._directory)},
        )
        stack = Stack(options, log)
        stage.push_async_callback(stack.stop)
        connection = await stack.start()
        self._say(f"Ready after {time.monotonic() - began:.1f} s at {connection.url}")
        return connection

    async def _show(self, task: DemoTask, cast: Cast, connection: Connection) -> int:
        self._headline(task.title)
        arguments = ["run", "--executor", task.executor, "--max-retries", "0", *task.options, task.prompt]
        self._say_command(*arguments)
        if not cast.real[task.executor]:
            arguments[-1] += f"\n{task.directives}"
            self._say(f"# {_abbreviated(task.directives)}   (in the prompt, for the stand-in)", style="dim")
        self._console.print()
        code = await self._codefleet(arguments, connection)
        self._console.print()
        self._say_command("git", "diff", program="")
        # Not through the console: git has coloured it already.
        print(await self._repository.changes(colour=self._console.is_terminal), end="", flush=True)
        await self._repository.commit(task.title)
        return code

    async def _codefleet(self, arguments: Sequence[str], connection: Connection) -> int:
        process = await asyncio.create_subprocess_exec(
            *_CLI,
            *arguments,
            cwd=self._repository.directory,
            env={**os.environ, "CODEFLEET_URL": connection.url, "CODEFLEET_API_KEY": connection.api_key},
            stdin=asyncio.subprocess.DEVNULL,
            # A Ctrl-C is the demo's, which ends the task as well.
            start_new_session=True,
        )
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
                self._console.show_cursor()

    def _say_command(self, *arguments: str, program: str = "codefleet ") -> None:
        self._say(f"$ {program}{shlex.join(arguments)}", style="bold")

    def _headline(self, title: str) -> None:
        self._console.print()
        self._console.rule(Text(title, style="bold cyan"), align="left")

    def _say(self, text: str | Text, style: str = "") -> None:
        self._console.print(text, style=style, soft_wrap=True)


def main(arguments: list[str]) -> int:
    """The process's entry; returns its exit code."""
    parser = argparse.ArgumentParser(prog="codefleet demo", description="Two agents at work, and all of codefleet.")
    parser.add_argument("--keep", action="store_true", help="keep the directory with the repository and the data")
    keep = parser.parse_args(arguments).keep
    console = Console(highlight=False, markup=False, emoji=False)
    directory = Path(tempfile.mkdtemp(prefix="codefleet-demo-"))
    try:
        return asyncio.run(_perform(directory, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("\nInterrupted; everything is stopped.")
        return _INTERRUPTED
    except CodefleetError as error:
        console.print(f"codefleet demo: {error.message}", style="red")
        return 1
    finally:
        if keep:
            hint = f"see its tasks again with `codefleet up --data-dir {directory / 'data'}`"
            console.print(f"Kept: {directory}; {hint}", soft_wrap=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)


async def _perform(directory: Path, console: Console) -> int:
    performance = asyncio.current_task()
    assert performance is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, performance.cancel)
    began = time.monotonic()
    succeeded = await Demo(directory, console).play(os.environ)
    verdict = Text("Both tasks succeeded", "green") if succeeded else Text("Not every task succeeded", "red")
    console.print(Text.assemble(verdict, f"; all done after {time.monotonic() - began:.1f} s."))
    return 0 if succeeded else 1


def _abbreviated(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _appender(path: Path) -> Callable[[bytes], None]:
    def append(data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data)

    return append


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
