"""B10: from `codefleet up` to the first task running, warm disk."""

import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.bench.report import Figure
from tests.support.stack import running_stack


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        await _start(data_dir)
        seconds = min([await _start(data_dir) for _ in range(3)])
    return [
        Figure(
            id="B10",
            what="`codefleet up` to first task running, warm disk",
            measured=f"{seconds:.1f} s",
            target="≤ 5 s",
            met=seconds <= 5,
        ),
    ]


async def _start(data_dir: Path) -> float:
    started = time.time()
    async with running_stack(data_dir) as stack:
        task = await stack.ended(await stack.submit(type="diagnostic"))
    running = next(move["at"] for move in task["history"] if move["to"] == "running")
    return datetime.fromisoformat(running).timestamp() - started
