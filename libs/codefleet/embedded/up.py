"""What `codefleet up` does around a stack: signals, the ready line, exit codes."""

import asyncio
import signal
import sys

from codefleet.embedded.logs import StackLog
from codefleet.embedded.stack import Stack, StackOptions
from codefleet.errors import CodefleetError

_KILLED = 130


async def serve(options: StackOptions, log: StackLog) -> int:
    """Runs a stack until SIGINT, SIGTERM or SIGHUP, or until it cannot start; a second signal kills at once.

    Prints one line `ready URL (…)` when everything is up. Returns the exit code: 0 after a signal, 1 with one line
    on standard error when it could not start, 130 when it was killed.
    """
    stack, stop = Stack(options, log), asyncio.Event()
    killed = _handle_signals(stack, stop)
    starting = asyncio.create_task(_announce(stack, log))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            await stopping
    except CodefleetError as error:
        log.close()
        print(f"codefleet up: {error.message}", file=sys.stderr)
        return 1
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await stack.stop()
    log.event("info", "stopped")
    return _KILLED if killed.is_set() else 0


async def _announce(stack: Stack, log: StackLog) -> None:
    connection = await stack.start()
    folder = stack.options.data_dir
    log.plain(f"ready {connection.url} (data in {folder}, key in {folder / 'connection.json'})")


def _handle_signals(stack: Stack, stop: asyncio.Event) -> asyncio.Event:
    killed = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            killed.set()
            stack.kill()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup ignores SIGHUP, and so do we then.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, on_signal)
    return killed
