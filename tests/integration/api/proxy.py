"""A TCP proxy that a test can cut or freeze, in place of a store that is away or hangs."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future


class Proxy:
    """Lives in a thread of its own: a client's blocking calls must not hold it up."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._target = host, port
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._stopped = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()])
        self._started: Future[None] = Future()

    def start(self) -> None:
        self._thread.start()
        self._started.result(timeout=10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(timeout=10)
        self._loop.close()

    def freeze(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def cut(self) -> None:
        """From now on connections are closed."""
        self._loop.call_soon_threadsafe(self._cut)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._mend)

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set_result(None)
        await self._stopped.wait()
        server.close()
        pumps = asyncio.all_tasks() - {asyncio.current_task()}
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    def _cut(self) -> None:
        self._refusing = True
        for writer in list(self._open):
            writer.close()

    def _mend(self) -> None:
        self._refusing = False
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.close()
            return
        with contextlib.suppress(OSError, asyncio.CancelledError):
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
            self._open |= {writer, upstream_writer}
            await asyncio.gather(self._pump(reader, upstream_writer), self._pump(upstream_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65_536):
                    await self._flowing.wait()
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()
            self._open.discard(writer)


@contextlib.contextmanager
def proxied(host: str, port: int) -> Iterator[Proxy]:
    """A running proxy before `host`:`port`."""
    proxy = Proxy(host, port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
