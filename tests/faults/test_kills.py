"""Every part is killed with -9 while work is under way; no accepted task is lost, none runs twice at once.

The judge is outside the product: the log of accepted submits against the lines that the tasks themselves append to
an effect file.
"""

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from codefleet_testkit.model_server import ModelServer
from tests.support.stack import RunningStack, running_stack
from tests.support.waiting import eventually

RUNS_AGAIN_SECONDS = 15.0


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[RunningStack]:
    async with running_stack(tmp_path / "data") as running:
        yield running


async def submit_diagnostics(stack: RunningStack, effects: Path, count: int, **parameters: Any) -> list[str]:
    """Submits at once; returns the ids that were accepted."""
    body = {
        "type": "diagnostic",
        "parameters": {"effect_file": str(effects), **parameters},
        "retry_delay": 0.1,
    }
    return list(await asyncio.gather(*(stack.submit(**body) for _ in range(count))))


def effects_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """What each task did, in the order in which it was done."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else []:
        effect = json.loads(line)
        found[effect["task_id"]].append(effect)
    return found


def check_effects(stack: RunningStack, accepted: list[str], path: Path) -> None:
    """No task lost, none with two runs to the end, none with two runs at the same time.

    A run that was killed has no end of its own; it lasted until its process was gone.
    """
    effects = effects_of(path)
    for task_id in accepted:
        mine = effects[task_id]
        assert [effect["event"] for effect in mine].count("end") == 1, mine
        assert mine[-1]["event"] == "end", mine
        runs: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for effect in mine:
            runs[effect["epoch"]].append(effect)
        free_at = 0.0
        for _, (begin, *rest) in sorted(runs.items()):
            assert begin["event"] == "begin", mine
            assert begin["at"] >= free_at, mine
            assert rest or begin["pid"] in stack.deaths, mine
            free_at = rest[-1]["at"] if rest else stack.deaths[begin["pid"]]


async def begun(effects: Path, count: int) -> None:
    async def enough() -> bool:
        return len(effects_of(effects)) >= count

    await eventually(enough, seconds=20)


async def test_tasks_of_a_killed_executor_run_again_within_15_seconds(stack: RunningStack, tmp_path: Path):
    effects = tmp_path / "effects"
    accepted = await submit_diagnostics(stack, effects, 6, sleep_seconds=3)
    await begun(effects, 3)
    killed_at = time.time()
    await stack.kill("services.executor_claude")
    await stack.kill("services.executor_cursor")
    tasks = [await stack.ended(task_id) for task_id in accepted]
    assert {task["status"] for task in tasks} == {"success"}
    check_effects(stack, accepted, effects)
    interrupted = [mine for mine in effects_of(effects).values() if mine[0]["epoch"] != mine[-1]["epoch"]]
    assert len(interrupted) >= 3, "the executors were killed too late to interrupt what they ran"
    for mine in interrupted:
        again = next(effect for effect in mine if effect["epoch"] != mine[0]["epoch"])
        assert again["at"] - killed_at <= RUNS_AGAIN_SECONDS, mine
    assert all(task["retry_count"] == 0 for task in tasks), "losing a worker must not burn a retry"


async def test_a_killed_scheduler_is_replaced_and_nothing_is_lost(stack: RunningStack, tmp_path: Path):
    effects = tmp_path / "effects"
    accepted = await submit_diagnostics(stack, effects, 20, sleep_seconds=0.3)
    await begun(effects, 3)
    await stack.kill("services.scheduler")
    accepted += await submit_diagnostics(stack, effects, 5)
    tasks = [await stack.ended(task_id) for task_id in accepted]
    assert {task["status"] for task in tasks} == {"success"}
    assert {task["attempt"] for task in tasks} == {1}
    check_effects(stack, accepted, effects)


async def test_redis_killed_with_its_data_loses_no_accepted_task(stack: RunningStack, tmp_path: Path):
    effects = tmp_path / "effects"
    accepted = await submit_diagnostics(stack, effects, 40, sleep_seconds=0.3)
    await begun(effects, 3)
    for dump in (stack.data_dir / "redis").glob("*.rdb"):
        dump.unlink()
    await stack.kill("redis-server")
    accepted += await submit_diagnostics(stack, effects, 5)
    tasks = [await stack.ended(task_id) for task_id in accepted]
    assert {task["status"] for task in tasks} == {"success"}
    check_effects(stack, accepted, effects)


async def test_an_emptied_redis_loses_no_accepted_task(stack: RunningStack, tmp_path: Path):
    effects = tmp_path / "effects"
    accepted = await submit_diagnostics(stack, effects, 40, sleep_seconds=0.3)
    await begun(effects, 3)
    async with Redis.from_url(stack.connection["redis_url"]) as redis:
        await redis.flushall()
    tasks = [await stack.ended(task_id) for task_id in accepted]
    assert {task["status"] for task in tasks} == {"success"}
    check_effects(stack, accepted, effects)


async def test_a_killed_mongod_is_answered_with_503_and_what_was_accepted_runs(stack: RunningStack, tmp_path: Path):
    effects = tmp_path / "effects"
    accepted = await submit_diagnostics(stack, effects, 20, sleep_seconds=0.3)
    await begun(effects, 3)
    body = {"type": "diagnostic", "parameters": {"effect_file": str(effects)}}
    with stack.nothing_restarted():
        await stack.kill("mongod")
        refused = await stack.client.post("/tasks", json=body)
    assert refused.status_code == 503, refused.text
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["code"] == "UNAVAILABLE"

    async def accepted_again() -> httpx.Response:
        answer = await stack.client.post("/tasks", json=body)
        assert answer.status_code in {202, 503}, answer.text
        return answer

    answer = await eventually(accepted_again, seconds=30, until=lambda answer: answer.status_code == 202)
    accepted.append(answer.json()["data"]["task_id"])
    tasks = [await stack.ended(task_id) for task_id in accepted]
    assert {task["status"] for task in tasks} == {"success"}
    check_effects(stack, accepted, effects)


async def test_an_agents_processes_are_dead_before_its_task_runs_again(tmp_path: Path):
    pids = tmp_path / "pids"
    work = tmp_path / "work"
    work.mkdir()
    # Its second attempt notes which of the first one's processes it can still see.
    script = (
        f"for p in $(cat {pids} 2>/dev/null); do kill -0 $p 2>/dev/null && echo $p >> {tmp_path}/survivors; done; "
        f"(setsid sleep 300 & echo $! >> {pids}); echo $$ >> {pids}; echo run >> {tmp_path}/runs; sleep 4"
    )
    async with ModelServer() as model:
        environment = {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "stand-in"}
        async with running_stack(tmp_path / "data", environment=environment) as stack:
            task_id = await stack.submit(
                prompt=f"[[run command={json.dumps(script)}]]",
                work_directory=str(work),
                parameters={"allowed_tools": ["Bash"]},
            )
            runs = tmp_path / "runs"

            async def started() -> bool:
                return runs.exists()

            await eventually(started, seconds=20)
            killed_at = time.monotonic()
            await stack.kill("services.executor_claude")

            async def all_dead() -> bool:
                return not any(_alive(int(pid)) for pid in pids.read_text().split())

            await eventually(all_dead, seconds=5)
            dead_after = time.monotonic() - killed_at
            task = await stack.ended(task_id, seconds=60)
            assert task["status"] == "success", task
            assert len(runs.read_text().split()) == 2
            assert not (tmp_path / "survivors").exists()
            assert dead_after < RUNS_AGAIN_SECONDS


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
