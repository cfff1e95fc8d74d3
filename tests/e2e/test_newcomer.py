"""What a newcomer does first, on a real stack with the real commands."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest

from codefleet_testkit.cursor_double import write_cursor_shim
from codefleet_testkit.model_server import ModelServer
from tests.support.stack import RunningStack, running_stack
from tests.support.waiting import eventually


class Ended(msgspec.Struct):
    """How a command ended."""

    code: int
    out: str
    err: str


async def codefleet(stack: RunningStack, *arguments: str, cwd: Path | None = None, stdin: str = "") -> Ended:
    """Runs the command line against a stack."""
    return await _run(
        arguments,
        {"CODEFLEET_URL": stack.connection["url"], "CODEFLEET_API_KEY": stack.connection["api_key"]},
        cwd,
        stdin,
    )


async def _run(arguments: tuple[str, ...], environment: Mapping[str, str], cwd: Path | None, stdin: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("codefleet")), *arguments),
        env={**os.environ, **environment},
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Ended(code=process.returncode, out=out.decode(), err=err.decode())


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[RunningStack]:
    shims = tmp_path / "bin"
    shims.mkdir()
    write_cursor_shim(shims)
    async with ModelServer() as model:
        environment = {
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "sk-canary-of-claude",
            "CURSOR_API_KEY": "key-canary-of-cursor",
            "CODEFLEET_CURSOR_BINARY": str(shims / "cursor-agent"),
        }
        async with running_stack(tmp_path / "data", environment=environment) as running:
            yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


async def test_the_commands_do_what_the_readme_says(stack: RunningStack, project: Path):
    healthy = await codefleet(stack, "doctor")
    assert healthy.code == 0, healthy.out + healthy.err

    claude = await codefleet(stack, "run", '[[write path=HELLO.md text="hi there"]]', cwd=project)
    assert claude.code == 0, claude.out + claude.err
    assert (project / "HELLO.md").read_text() == "hi there"
    assert "Write HELLO.md" in claude.out

    cursor = await codefleet(stack, "run", "-e", "cursor", "-", cwd=project, stdin="[[write path=C.md text=cursor]]")
    assert cursor.code == 0, cursor.out + cursor.err
    assert (project / "C.md").read_text() == "cursor"

    listed = await codefleet(stack, "ls", "--json")
    assert {task["executor"] for task in json.loads(listed.out)["items"]} >= {"claude", "cursor"}


async def test_the_exit_code_is_the_outcome(stack: RunningStack):
    diagnostic = ("run", "-t", "diagnostic")
    assert (await codefleet(stack, *diagnostic)).code == 0
    assert (await codefleet(stack, *diagnostic, "-p", "fail=permanent")).code == 1
    assert (await codefleet(stack, *diagnostic, "-p", "sleep_seconds=60", "--timeout", "1")).code == 5
    assert (await codefleet(stack, "run", "--executor", "nobody", "x")).code == 2

    submitted = await codefleet(stack, "submit", "-t", "diagnostic", "-p", "sleep_seconds=60")
    task_id = submitted.out.strip()
    following = asyncio.create_task(codefleet(stack, "logs", "-f", task_id))
    await stack.in_state(task_id, "running")
    assert (await codefleet(stack, "cancel", task_id)).code == 0
    assert (await stack.ended(task_id))["status"] == "cancelled"
    assert (await following).code in {0, 4}


async def test_cancelling_an_agent_kills_its_whole_tree(stack: RunningStack, project: Path):
    pids = project / "pids"
    script = f"setsid sleep 300 & echo $! > {pids}.tmp; echo $$ >> {pids}.tmp; mv {pids}.tmp {pids}; sleep 300"
    task_id = await stack.submit(
        prompt=f"[[run command={json.dumps(script)}]]",
        work_directory=str(project),
        parameters={"allowed_tools": ["Bash"]},
    )

    async def agent_is_busy() -> bool:
        return pids.exists()

    await eventually(agent_is_busy, seconds=20)
    answer = await stack.client.post(f"/tasks/{task_id}/cancel", json={"reason": "changed my mind"})
    assert answer.status_code == 202
    assert answer.json()["data"]["status"] in {"cancelling", "cancelled"}
    task = await stack.ended(task_id)
    assert task["status"] == "cancelled"
    assert "changed my mind" in json.dumps(task["history"])
    assert not [pid for pid in pids.read_text().split() if _is_alive(pid)]


async def test_credentials_show_nowhere(stack: RunningStack, project: Path):
    canary = "sk-canary-of-claude"
    task_id = await stack.submit(
        prompt='[[run command="echo $ANTHROPIC_API_KEY; env"]]',
        work_directory=str(project),
        parameters={"allowed_tools": ["Bash"]},
    )
    assert (await stack.ended(task_id))["status"] == "success"
    paths = (f"/tasks/{task_id}", f"/tasks/{task_id}/logs", "/tasks", "/workers", "/health")
    shown = [(await stack.client.get(path)).text for path in paths]
    assert not [text for text in shown if canary in text]
    assert canary not in (stack.data_dir.parent / f"{stack.data_dir.name}.log").read_text()


async def test_the_demo_ends_in_success(tmp_path: Path):
    environment = {"TMPDIR": str(tmp_path), "ANTHROPIC_API_KEY": "", "CURSOR_API_KEY": ""}
    demo = await _run(("demo",), environment, tmp_path, "")
    assert demo.code == 0, demo.out + demo.err
    assert "+class TotalTest" in demo.out
    assert "Both tasks succeeded" in demo.out


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
