"""A load generator that leaves the machine to what is measured: raw HTTP/1.1 over keep-alive connections.

Run as `python -m tests.bench.load HOST PORT CONNECTIONS COUNT < REQUEST`; prints the latencies (seconds) and what was
refused as JSON.
"""

import asyncio
import json
import sys
import time
from typing import cast

import uvloop


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last has arrived."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._load.answered(int(head[9:12]), time.perf_counter() - self._sent_at)
        self._buffer = body[length:]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(exc)

    def _send(self) -> None:
        assert self._transport is not None
        if not self._load.take():
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._load.request)


class _Load:
    def __init__(self, request: bytes, count: int) -> None:
        self.request = request
        self.latencies: list[float] = []
        self.refused: dict[int, int] = {}
        self.done = asyncio.Event()
        self._left = count
        self._count = count

    def take(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def answered(self, status: int, seconds: float) -> None:
        self.latencies.append(seconds)
        if status >= 300:
            self.refused[status] = self.refused.get(status, 0) + 1
        if len(self.latencies) == self._count:
            self.done.set()

    def lost(self, error: Exception | None) -> None:
        if error is not None:
            raise error


async def _run(host: str, port: int, connections: int, request: bytes, count: int) -> None:
    load = _Load(request, count)
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(load), host, port)
    async with asyncio.timeout(300):
        await load.done.wait()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "latencies": load.latencies, "refused": load.refused}))  # noqa: T201


if __name__ == "__main__":
    host, port, connections, count = sys.argv[1], *map(int, sys.argv[2:5])
    uvloop.run(_run(host, port, connections, sys.stdin.buffer.read(), count))
