import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys

import msgspec
import psutil
import pytest

from codefleet.execution.process_output import CUT_MARK
from codefleet.execution.supervisor import LaunchError, OutputLine, launch


async def test_an_exit_tells_code_time_and_memory(workshop, output_of):
    process = await launch(
        workshop.spec("""
        import sys, time
        memory = b"x" * 50_000_000
        while time.process_time() < 0.2: pass
        sys.exit(7)
        """)
    )
    assert await output_of(process) == []
    end = await process.wait()
    assert (end.exit_code, end.signal, end.reason) == (7, None, "exit")
    assert (end.survivors_killed, end.dropped_bytes) == (0, 0)
    assert 0.2 <= end.cpu_seconds < 5
    assert 50_000_000 < end.max_memory_bytes < 200_000_000


async def test_time_and_memory_of_offspring_count_even_if_nobody_waited_for_it(workshop, output_of):
    process = await launch(
        workshop.spec("""
        import os, time
        if os.fork() == 0:
            if os.fork() == 0:
                memory = b"x" * 50_000_000
                while time.process_time() < 0.2: pass
                open("done", "w").close()
            os._exit(0)
        while not os.path.exists("done"): time.sleep(0.001)
        """)
    )
    await output_of(process)
    end = await process.wait()
    assert end.cpu_seconds >= 0.2
    assert end.max_memory_bytes > 50_000_000


async def test_a_signal_is_told(workshop, output_of):
    process = await launch(workshop.spec("import os; os.kill(os.getpid(), 15)"))
    await output_of(process)
    end = await process.wait()
    assert (end.exit_code, end.signal, end.reason) == (None, signal.SIGTERM, "exit")


async def test_both_pipes_are_merged_as_their_lines_arrive(workshop):
    process = await launch(
        workshop.spec("""
        import os, time
        for number in range(6):
            os.write(1 + number % 2, b"%d\\n" % number)
            time.sleep(0.05)
        os.write(1, b"no end")
        """)
    )
    lines = [line async for line in process.lines()]
    assert lines == [
        *(OutputLine(stream=("stdout", "stderr")[number % 2], text=str(number)) for number in range(6)),
        OutputLine(stream="stdout", text="no end"),
    ]
    await process.wait()


async def test_each_pipe_keeps_its_order_and_loses_nothing_to_a_slow_reader(workshop):
    process = await launch(workshop.spec("for number in range(200_000): print(number)"))
    texts = []
    async for line in process.lines():
        if len(texts) % 20_000 == 0:
            await asyncio.sleep(0.01)
        texts.append(line.text)
    assert texts == [str(number) for number in range(200_000)]
    assert (await process.wait()).dropped_bytes == 0


async def test_output_over_the_limit_is_dropped_and_counted_but_for_its_last_line(workshop, output_of):
    process = await launch(
        workshop.spec(
            """
        for _ in range(20_000): print("x" * 999)
        print("the result")
        open("finished", "w").close()
        """,
            max_output_bytes=100_000,
        )
    )
    texts = await output_of(process)
    assert texts == ["x" * 999] * 100 + ["the result"]
    end = await process.wait()
    assert (end.exit_code, end.dropped_bytes) == (0, 999 * 19_900)
    assert (workshop.directory / "finished").exists()


async def test_an_endless_line_is_cut(workshop):
    process = await launch(
        workshop.spec("import os; os.write(1, b'y' * 10_000_000 + b'\\nnext\\n')", max_line_bytes=1_000_000)
    )
    lines = [line async for line in process.lines()]
    assert lines == [
        OutputLine(stream="stdout", text="y" * 1_000_000 + CUT_MARK, truncated=True),
        OutputLine(stream="stdout", text="next"),
    ]
    assert (await process.wait()).dropped_bytes == 9_000_000


async def test_invalid_utf8_is_replaced(workshop, output_of):
    process = await launch(workshop.spec("import os; os.write(1, b'caf\\xc3\\xa9 \\xff\\xfe\\n')"))
    assert await output_of(process) == ["café \ufffd\ufffd"]
    await process.wait()


async def test_an_agent_goes_on_when_its_reader_has_left(workshop):
    process = await launch(workshop.spec("for _ in range(100_000): print('x' * 99)"))
    lines = process.lines()
    await anext(lines)
    await lines.aclose()
    end = await process.wait()
    assert end.exit_code == 0
    assert end.dropped_bytes > 9_000_000


@pytest.mark.parametrize(("stdin", "expected"), [(None, 0), (b"", 0), (b"z" * 3_000_000, 3_000_000)])
async def test_stdin_holds_what_was_given_and_ends(workshop, output_of, stdin, expected):
    process = await launch(workshop.spec("import sys; print(len(sys.stdin.buffer.read()))", stdin=stdin))
    assert await output_of(process) == [str(expected)]
    await process.wait()


async def test_an_agent_that_does_not_read_its_stdin_is_no_trouble(workshop, output_of):
    process = await launch(workshop.spec("print('done')", stdin=b"z" * 3_000_000))
    assert await output_of(process) == ["done"]
    assert (await process.wait()).exit_code == 0


async def test_the_agent_runs_in_its_directory_with_its_arguments_as_they_are(workshop, output_of):
    arguments = ["$HOME; exit", "", "naïve\n"]
    argv = (*workshop.agent("import os, sys; print(os.getcwd(), sys.argv[1:])"), *arguments)
    process = await launch(workshop.spec(argv))
    assert await output_of(process) == [f"{workshop.directory} {arguments}"]
    await process.wait()


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("no-such-program",), "ENOENT"),
        (("./missing",), "ENOENT"),
        (("./not-executable",), "EACCES"),
        (("./not-a-program",), "ENOEXEC"),
        (("sh", "x" * 1_000_000), "E2BIG"),
        (("sh", "zero\0byte"), "EINVAL"),
    ],
)
async def test_a_program_that_cannot_be_started_is_an_error(workshop, argv, code):
    (workshop.directory / "not-executable").write_text("#!/bin/sh\n")
    (workshop.directory / "not-a-program").write_bytes(b"\0\0")
    (workshop.directory / "not-a-program").chmod(0o755)
    with pytest.raises(LaunchError) as caught:
        await launch(workshop.spec(argv))
    assert caught.value.code == code
    assert argv[0] in caught.value.message or code == "EINVAL"
    assert workshop.is_dead()


async def test_a_missing_directory_is_an_error_that_names_it(workshop):
    with pytest.raises(LaunchError, match="nowhere") as caught:
        await launch(workshop.spec("", cwd=workshop.directory / "nowhere"))
    assert caught.value.code == "ENOENT"


async def test_an_agent_sees_its_own_environment_and_nothing_else(workshop, output_of, monkeypatch):
    canary = secrets.token_hex()
    monkeypatch.setenv("CANARY", canary)
    source = """
        import json, os
        print(json.dumps(dict(os.environ)))
        ancestor = os.getppid()
        print(open(f"/proc/{ancestor}/environ").read() + open(f"/proc/{ancestor}/cmdline").read())
    """
    env = {"A": "1", "CODEFLEET_TOKEN": canary, "CODEFLEET_RUN": "other:9"}
    process = await launch(workshop.spec(source, env=env))
    own, guardians = await output_of(process)
    environment = json.loads(own)
    assert environment.pop("CODEFLEET_LAUNCH").startswith(f"{workshop.token}:1:")
    environment.pop("LC_CTYPE", None)  # of Python's own making
    assert environment == {"A": "1", "CODEFLEET_RUN": f"{workshop.token}:1"}
    assert canary not in own + guardians
    await process.wait()


async def test_an_agent_inherits_no_descriptor(workshop, output_of, tmp_path):
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        async with (
            await launch(workshop.spec("time.sleep(60)", marker=f"{workshop.token}:2")),
            await launch(workshop.spec(("ls", "-l", "/proc/self/fd"))) as process,
        ):
            links = [text.split()[-3:] for text in await output_of(process) if "->" in text]
    descriptors = {number: target.split(":")[0] for number, _, target in links if "/proc/" not in target}
    assert descriptors == {"0": "/dev/null", "1": "pipe", "2": "pipe"}


async def test_an_agent_inherits_no_ignored_or_blocked_signal(workshop, output_of):
    old = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        async with await launch(workshop.spec(("grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"))) as process:
            masks = [int(text.split()[1], 16) for text in await output_of(process)]
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGUSR1, old)
    # Signals 32 and 33 are the C library's own, and its posix_spawn, which make uses, leaves them ignored.
    assert [mask & ~(0b11 << 31) for mask in masks] == [0, 0]


async def test_nothing_is_left_open_in_this_process(workshop, output_of):
    async def once() -> None:
        process = await launch(workshop.spec("print('x')", stdin=b"x"))
        await output_of(process)
        await process.wait()
        with pytest.raises(LaunchError):
            await launch(workshop.spec(("no-such-program",)))

    await once()
    before = psutil.Process().num_fds()
    for _ in range(3):
        await once()
    assert psutil.Process().num_fds() == before


async def test_it_works_on_uvloop_too(workshop):
    script = workshop.directory.parent / "main.py"
    script.write_text("""
import sys, uvloop, msgspec
from codefleet.execution.supervisor import ProcessSpec, launch

async def main():
    spec = msgspec.json.decode(sys.argv[1], type=ProcessSpec, dec_hook=lambda kind, value: kind(value))
    async with await launch(spec) as process:
        print([line.text async for line in process.lines()], (await process.wait()).exit_code)

uvloop.run(main())
""")
    spec = msgspec.json.encode(workshop.spec("print('hello')"), enc_hook=str)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-W", "error", script, spec], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("['hello'] 0\n", "")
