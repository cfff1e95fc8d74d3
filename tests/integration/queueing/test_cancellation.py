"""A reader of Redis ends when it is told to, whatever it is doing at that moment."""

import asyncio
import random

from codefleet.messages import Hint, WorkersChanged
from codefleet.queueing.streams import StreamWriter, read_stream
from codefleet.service import Stores
from tests.support.waiting import finished


async def test_a_cancelled_reader_ends_at_whatever_moment_it_is_cancelled(stores: Stores):
    async def read(stream: str) -> None:
        async for _ in read_stream(stores.redis, stream, Hint):
            pass

    writer = StreamWriter(stores.redis)
    for number in range(12):
        readers = [asyncio.create_task(read(f"stream-{number}")) for _ in range(20)]
        writer.send(f"stream-{number}", WorkersChanged())
        # The moments that matter are those at which a command has just been sent.
        await asyncio.sleep(random.random() * 0.01)
        for reader in readers:
            reader.cancel()
        ended, _ = await asyncio.wait(readers, timeout=5)
        assert len(ended) == len(readers)
    await finished([asyncio.create_task(writer.close())])
