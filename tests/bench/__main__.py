"""`python -m tests.bench [NAME …]`: measures and writes docs/benchmarks.md and .json."""

import asyncio
import sys

from tests.bench import latency, overhead, start, submits
from tests.bench.report import Figure, write

_MEASURES = {"B1": submits.measure, "B3": latency.measure, "B7": overhead.measure, "B10": start.measure}


async def _measure(names: list[str]) -> list[Figure]:
    figures: list[Figure] = []
    for name in names or list(_MEASURES):
        print(f"measuring {name} ...", flush=True)  # noqa: T201
        figures += await _MEASURES[name]()
    return figures


if __name__ == "__main__":
    print(write(asyncio.run(_measure(sys.argv[1:]))))  # noqa: T201
