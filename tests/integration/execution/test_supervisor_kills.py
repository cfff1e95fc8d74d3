"""No process of an agent outlives its right to run, whatever it does and whatever happens to its executor."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import msgspec
import psutil
import pytest

from codefleet.execution.supervisor import launch, sweep

SLEEPER = """
open(__file__ + ".ready", "w").close()
time.sleep(60)
"""

DEAF = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
"""

WITH_DAEMON = """
become_a_daemon()
time.sleep(60)
"""

EXECUTOR = """
import asyncio, sys, msgspec
from codefleet.execution.supervisor import ProcessSpec, launch

async def main():
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=ProcessSpec, dec_hook=lambda kind, value: kind(value))
    process = await launch(spec)
    async for line in process.lines():
        pass

asyncio.run(main())
"""


@pytest.fixture
def executor():
    """Starts an agent from another process, which can then be killed for real."""
    started = []

    def start(spec) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "-c", EXECUTOR], stdin=subprocess.PIPE)
        started.append(process)
        process.stdin.write(msgspec.json.encode(spec, enc_hook=str))
        process.stdin.close()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_a_daemon_dies_with_the_main_process_and_does_not_hold_up_the_output(workshop, output_of):
    process = await launch(workshop.spec("become_a_daemon(); print('bye')"))
    async with asyncio.timeout(10):
        assert await output_of(process) == ["bye"]
        end = await process.wait()
    assert (end.exit_code, end.reason, end.survivors_killed) == (0, "exit", 1)
    assert workshop.is_dead()


async def test_whatever_carries_the_launch_s_id_dies_although_it_is_nobody_s_child(workshop):
    async with await launch(workshop.spec(SLEEPER)) as process:
        await workshop.ready()
        environment = psutil.Process(process.pid).environ()
        stray = await asyncio.create_subprocess_exec(*workshop.agent(SLEEPER, name="stray"), env=environment)
        await workshop.ready("stray.py.ready")
    assert await stray.wait() == -signal.SIGKILL


async def test_other_processes_of_the_same_run_live_on(workshop):
    async with await launch(workshop.spec(SLEEPER)) as main:
        await workshop.ready()
        helper = await launch(workshop.spec(("true",)))
        assert (await helper.wait()).exit_code == 0
        assert psutil.pid_exists(main.pid)
        assert (await main.kill()).reason == "killed"


async def test_stop_first_asks_the_main_process(workshop):
    process = await launch(
        workshop.spec("""
        def leave(number, frame): sys.exit(3)
        signal.signal(signal.SIGINT, leave)
        open(__file__ + ".ready", "w").close()
        time.sleep(60)
        """)
    )
    await workshop.ready()
    end = await process.stop(grace_seconds=30)
    assert (end.exit_code, end.reason) == (3, "exit")


async def test_stop_then_asks_the_whole_tree(workshop):
    process = await launch(
        workshop.spec("""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        def leave(number, frame):
            open(f"left-{number}", "w").close()
            os._exit(0)
        child = os.fork()
        if child == 0: os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL if child else leave)
        if child == 0: open(__file__ + ".ready", "w").close()
        if child:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.wait()
            sys.exit(4)
        time.sleep(60)
        """)
    )
    await workshop.ready()
    end = await process.stop(grace_seconds=1)
    assert (end.exit_code, end.reason) == (4, "exit")
    assert (workshop.directory / "left-15").exists()


async def test_stop_kills_who_does_not_listen(workshop):
    process = await launch(workshop.spec(DEAF + WITH_DAEMON))
    await workshop.ready()
    started = time.monotonic()
    end, repeated = await asyncio.gather(process.stop(grace_seconds=0.4), process.stop(grace_seconds=0.4))
    assert 0.4 <= time.monotonic() - started < 5
    assert (end.signal, end.reason, end.survivors_killed) == (signal.SIGKILL, "killed", 1)
    assert end == repeated == await process.stop(grace_seconds=1) == await process.kill()
    assert workshop.is_dead()


async def test_kill_is_immediate(workshop):
    process = await launch(workshop.spec(DEAF + WITH_DAEMON))
    await workshop.ready()
    end = await process.kill()
    assert (end.signal, end.reason, end.survivors_killed) == (signal.SIGKILL, "killed", 1)
    assert workshop.is_dead()


async def test_a_lease_that_is_not_renewed_ends_the_tree(workshop):
    process = await launch(workshop.spec(DEAF + WITH_DAEMON, lease_seconds=0.7))
    end = await process.wait()
    assert (end.reason, end.signal) == ("lease", signal.SIGKILL)
    assert workshop.is_dead()


async def test_renewals_keep_an_agent_alive(workshop):
    started = time.monotonic()
    process = await launch(workshop.spec(SLEEPER, lease_seconds=1.5))
    while time.monotonic() - started < 3:
        process.renew(1.5)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await process.wait()
    assert workshop.living()
    process.renew(0.1)
    assert (await process.wait()).reason == "lease"


async def test_the_tree_dies_with_its_executor(workshop, executor):
    process = executor(workshop.spec(DEAF + WITH_DAEMON))
    await workshop.ready()
    process.kill()
    await workshop.until(workshop.is_dead, seconds=1)


async def test_the_tree_dies_when_its_executor_is_frozen_beyond_the_lease(workshop, executor):
    process = executor(workshop.spec(DEAF + WITH_DAEMON, lease_seconds=1.5))
    await workshop.ready()
    process.send_signal(signal.SIGSTOP)
    assert workshop.living()
    await workshop.until(workshop.is_dead, seconds=4)


async def test_processes_that_start_each_other_again_die(workshop):
    process = await launch(
        workshop.spec("""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end = time.monotonic() + 20

        def keep_two_alive(depth):
            os.setsid()
            children = 0
            while time.monotonic() < end:
                while children < 2 and depth:
                    if os.fork() == 0:
                        keep_two_alive(depth - 1)
                        os._exit(0)
                    children += 1
                if depth:
                    os.wait()
                    children -= 1
                else:
                    open(__file__ + ".ready", "w").close()
                    time.sleep(1)

        if os.fork() == 0:
            keep_two_alive(5)
        time.sleep(20)
        """)
    )
    await workshop.until(lambda: len(workshop.living()) >= 60)
    async with asyncio.timeout(5):
        end = await process.kill()
    assert end.survivors_killed > 0
    assert workshop.is_dead()


async def test_processes_that_change_their_id_all_the_time_die(workshop):
    process = await launch(
        workshop.spec("""
        end = time.monotonic() + 20
        for _ in range(3):
            if os.fork() == 0:
                hops = 0
                while time.monotonic() < end:
                    if os.fork(): os._exit(0)
                    os.setsid()
                    hops += 1
                    if hops == 20: open(__file__ + ".ready", "w").close()
                os._exit(0)
        time.sleep(20)
        """)
    )
    await workshop.ready()
    async with asyncio.timeout(10):
        end = await process.kill()
    assert end.survivors_killed >= 3
    assert workshop.is_dead()


async def test_an_agent_cannot_save_itself_by_stopping_its_guardian(workshop):
    process = await launch(workshop.spec("os.kill(os.getppid(), signal.SIGSTOP)" + SLEEPER))
    await workshop.ready()
    async with asyncio.timeout(5):
        assert (await process.kill()).reason == "killed"


async def test_a_guardian_that_was_stopped_for_so_long_that_its_pipe_is_full_still_kills(workshop):
    process = await launch(workshop.spec("os.kill(os.getppid(), signal.SIGSTOP)" + SLEEPER))
    await workshop.ready()
    for _ in range(10_000):
        process.renew(60)
    async with asyncio.timeout(5):
        assert (await process.kill()).reason == "orphaned"
    assert workshop.is_dead()


async def test_an_agent_that_kills_its_guardian_dies_and_so_does_what_carries_the_marker(workshop):
    process = await launch(
        workshop.spec("""
        if os.fork() == 0:
            os.setsid()
            open(__file__ + ".ready", "w").close()
            time.sleep(60)
        while not os.path.exists(__file__ + ".ready"): time.sleep(0.001)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
        """)
    )
    end = await process.wait()
    assert (end.reason, end.exit_code, end.signal) == ("lost", None, None)
    await workshop.until(workshop.is_dead)


async def test_a_guardian_that_is_told_to_end_takes_its_agent_along(workshop):
    process = await launch(workshop.spec(WITH_DAEMON))
    await workshop.ready()
    os.kill(process._guardian.pid, signal.SIGTERM)
    assert (await process.wait()).reason == "killed"
    assert workshop.is_dead()


@pytest.mark.parametrize("delay_seconds", [0, 0.005, 0.01, 0.015, 0.02, 0.03])
async def test_a_cancelled_launch_leaves_nothing(workshop, delay_seconds):
    async def run() -> None:
        async with await launch(workshop.spec(WITH_DAEMON)) as process:
            await process.wait()

    task = asyncio.create_task(run())
    await asyncio.sleep(delay_seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert workshop.is_dead()


async def test_a_cancelled_wait_leaves_the_agent_to_its_owner(workshop):
    process = await launch(workshop.spec(SLEEPER))
    for method in (process.wait, lambda: anext(process.lines())):
        task = asyncio.ensure_future(method())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert workshop.living()
    assert (await process.kill()).reason == "killed"


async def test_a_cancelled_stop_kills(workshop):
    process = await launch(workshop.spec(DEAF + WITH_DAEMON))
    await workshop.ready()
    task = asyncio.create_task(process.stop(grace_seconds=60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await process.wait()).reason == "killed"


def test_the_end_of_the_event_loop_leaves_nothing(workshop):
    async def run() -> None:
        async def agent() -> None:
            async with await launch(workshop.spec(WITH_DAEMON)) as process:
                await process.wait()

        task = asyncio.create_task(agent())
        await workshop.ready()
        assert not task.done()

    asyncio.run(run())
    assert workshop.is_dead()


def test_a_sweep_kills_older_epochs_of_its_task_only(workshop):
    def start(marker: str) -> "subprocess.Popen[bytes]":
        environment = {"CODEFLEET_RUN": f"{workshop.token}:{marker}"}
        return subprocess.Popen(workshop.agent(SLEEPER, name=marker), env=environment, start_new_session=True)

    marked = {marker: start(marker) for marker in ("1", "2", "10", "other:1")}
    try:
        for marker in marked:
            asyncio.run(workshop.ready(f"{marker}.py.ready"))
        assert sweep(workshop.token, below_epoch=1) == 0
        assert sweep(workshop.token, below_epoch=10) == 2
        assert (marked["1"].wait(5), marked["2"].wait(5)) == (-signal.SIGKILL, -signal.SIGKILL)
        assert (marked["10"].poll(), marked["other:1"].poll()) == (None, None)
        assert sweep(workshop.token) == 1
        assert marked["10"].wait(5) == -signal.SIGKILL
        assert marked["other:1"].poll() is None
    finally:
        for process in marked.values():
            process.kill()
            process.wait()


async def test_a_sweep_takes_a_run_s_unmarked_processes_along(workshop):
    process = await launch(workshop.spec(WITH_DAEMON))
    await workshop.ready()
    assert psutil.Process(process._guardian.pid).environ() == {}
    assert await asyncio.to_thread(sweep, workshop.token, below_epoch=2) == 1
    assert (await process.wait()).signal == signal.SIGKILL
    assert workshop.is_dead()
