"""B7: a Claude Code CLI run through codefleet, minus the same run bare, side by side."""

import asyncio
import os
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from codefleet_testkit.model_server import ModelServer
from tests.bench.report import Figure
from tests.support.stack import RunningStack, running_stack

_RUNS = 15
_PROMPT = "Say hello."


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        async with ModelServer() as model:
            credentials = {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "stand-in"}
            async with running_stack(home / "data", environment=credentials) as stack:
                bare, ours = [], []
                for number in range(_RUNS + 1):
                    bare.append(await _bare(home, credentials))
                    ours.append(await _through(stack, number))
    # The first pair warms the disk.
    bare_ms, ours_ms = (statistics.median(times[1:]) * 1000 for times in (bare, ours))
    return [
        Figure(
            id="B7",
            what="Claude CLI run through codefleet minus the same bare run, median",
            measured=f"{ours_ms - bare_ms:.0f} ms ({ours_ms:.0f} − {bare_ms:.0f} ms, {_RUNS} runs each)",
            target="≤ 100 ms",
            met=ours_ms - bare_ms <= 100,
            peer=f"bare run: {bare_ms:.0f} ms",
            ratio=ours_ms / bare_ms,
        ),
    ]


async def _through(stack: RunningStack, number: int) -> float:
    """Seconds from the submit to the answer of a long poll that the task has ended."""
    started = time.perf_counter()
    task_id = await stack.submit(prompt=_PROMPT, name=f"bench {number}")
    answer = await stack.client.get(f"/tasks/{task_id}?wait=30", timeout=40)
    seconds = time.perf_counter() - started
    assert answer.json()["data"]["status"] == "success", answer.text
    return seconds


async def _bare(home: Path, credentials: dict[str, str]) -> float:
    spec = find_spec("claude_agent_sdk")
    assert spec is not None
    assert spec.origin is not None
    binary = Path(spec.origin).parent / "_bundled" / "claude"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home / "home"),
        "CLAUDE_CONFIG_DIR": str(home / "config"),
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        **credentials,
    }
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(str(binary), "-p", _PROMPT, "--output-format", "stream-json", "--verbose", "--setting-sources", ""),
        env=environment,
        cwd=home,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    await process.communicate()
    seconds = time.perf_counter() - started
    assert process.returncode == 0
    return seconds
