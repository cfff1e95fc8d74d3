"""The Cursor double keeps to the documented protocol, and breaks it as reported only when it is told to."""

import asyncio
import signal

import psutil
import pytest

BARE_FLAGS = ("--output-format", "stream-json", "--model", "gpt-5")


async def _stays(agent) -> bool:
    try:
        await asyncio.wait_for(agent.process.wait(), 0.3)
    except TimeoutError:
        return True
    return False


async def test_speaks_the_documented_events(cursor, workspace):
    agent = await (await cursor("Just talk")).finish()

    assert agent.process.returncode == 0
    assert [event["type"] for event in agent.events] == ["system", "user", "assistant", "result"]
    assert len({event["session_id"] for event in agent.events}) == 1
    assert {key: agent.events[0][key] for key in ("subtype", "cwd", "model", "apiKeySource", "permissionMode")} == {
        "subtype": "init",
        "cwd": str(workspace),
        "model": "gpt-5",
        "apiKeySource": "env",
        "permissionMode": "default",
    }
    assert set(agent.result) == {
        *("type", "subtype", "duration_ms", "duration_api_ms", "is_error", "result", "session_id", "request_id")
    }
    assert "stand-in" in agent.result["result"]


async def test_writes_files_and_runs_commands(cursor, workspace):
    agent = await (await cursor('[[write path=a/b.md text="hi\\n"]] [[run command="cat a/b.md; exit 3"]]')).finish()

    assert (workspace / "a/b.md").read_text() == "hi\n"
    written, ran = [event["tool_call"] for event in agent.of_type("tool_call", "completed")]
    assert written["writeToolCall"]["result"] == {
        "success": {"path": str(workspace / "a/b.md"), "linesCreated": 1, "fileSize": 3}
    }
    assert (ran["shellToolCall"]["result"]["success"]["exitCode"], agent.process.returncode) == (3, 0)
    assert ran["shellToolCall"]["result"]["success"]["stdout"] == "hi\n"
    assert [event["call_id"] for event in agent.of_type("tool_call", "started")] == [
        event["call_id"] for event in agent.of_type("tool_call", "completed")
    ]


async def test_resumes_a_session(cursor):
    agent = await (await cursor("hello", *BARE_FLAGS, "--trust", "--resume", "some-session")).finish()

    assert agent.result["session_id"] == "some-session"


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ((*BARE_FLAGS, "--trust", "--unheard-of"), "made-up"),
        ((*BARE_FLAGS, "--trust", "--wor", "x"), "made-up"),
        ((*BARE_FLAGS, "--trust"), ""),
        ((*BARE_FLAGS, "--trust"), "invalid"),
        (("--output-format", "text", "--trust"), "made-up"),
    ],
)
async def test_refuses_unknown_flags_and_missing_keys(cursor, flags, key):
    agent = await (await cursor("hello", *flags, key=key)).finish()

    assert agent.process.returncode == 1
    assert agent.stderr.lower().startswith("error")
    assert agent.lines == []


async def test_refuses_steps_without_force(cursor, workspace):
    flags = (*BARE_FLAGS, "--trust", "--workspace", str(workspace))
    agent = await (await cursor("[[write path=a]]", *flags)).finish()

    assert "reason" in agent.of_type("tool_call", "completed")[0]["tool_call"]["writeToolCall"]["result"]["rejected"]
    assert list(workspace.iterdir()) == []


async def test_does_nothing_without_trust(cursor):
    agent = await (await cursor("[[write path=a]]", *BARE_FLAGS, "--force")).finish()

    assert (agent.process.returncode, agent.lines, agent.stderr) == (0, [], "")


async def test_hangs_without_trust_when_told_to(cursor):
    agent = await cursor("[[untrusted behaviour=hang]]", *BARE_FLAGS, "--force")

    assert await _stays(agent)


async def test_emits_types_that_are_not_documented(cursor):
    prompt = '[[thinking]] [[query]] [[emit event={"type": "hologram", "depth": 3}]]'
    agent = await (await cursor(prompt)).finish()

    assert [event["subtype"] for event in agent.of_type("thinking")] == ["delta", "completed"]
    assert agent.of_type("interaction_query")
    assert agent.of_type("hologram")[0]["depth"] == 3


async def test_reports_usage_in_camel_case(cursor):
    agent = await (await cursor("[[usage input_tokens=7 output_tokens=5]]")).finish()

    assert agent.result["usage"] == {"inputTokens": 7, "outputTokens": 5, "cacheReadTokens": 0, "cacheWriteTokens": 0}


async def test_a_call_id_may_contain_a_newline(cursor):
    agent = await (await cursor("[[newline_ids]] [[run command=true]]")).finish()

    assert all("\n" in event["call_id"] for event in agent.of_type("tool_call"))


async def test_a_step_may_be_rejected(cursor, workspace):
    agent = await (await cursor('[[rejected reason="not today"]] [[write path=a]] [[write path=b]]')).finish()

    results = [event["tool_call"]["writeToolCall"]["result"] for event in agent.of_type("tool_call", "completed")]
    assert results[0] == {"rejected": {"reason": "not today"}}
    assert [file.name for file in workspace.iterdir()] == ["b"]


async def test_partial_output_repeats_the_text(cursor):
    flags = (*BARE_FLAGS, "--trust", "--stream-partial-output")
    agent = await (await cursor("[[answer words=3]]", *flags)).finish()

    texts = [event["message"]["content"][0]["text"] for event in agent.of_type("assistant")]
    assert texts == ["the", " quick", " brown", "the quick brown"]


async def test_stays_after_its_result(cursor):
    agent = await cursor("[[linger]]")
    await agent.read_until('"result"')

    assert await _stays(agent)


async def test_fails_without_a_result(cursor):
    agent = await (await cursor('[[write path=a]] [[fail exit_code=7 stderr="Error: out of quota"]]')).finish()

    assert (agent.process.returncode, agent.stderr) == (7, "Error: out of quota\n")
    assert agent.of_type("result") == []


async def test_fails_for_the_first_tries_only(cursor, tmp_path):
    prompt = f"[[fail times=2 state={tmp_path / 'tries'}]]"

    assert [(await (await cursor(prompt)).finish()).process.returncode for _ in range(3)] == [1, 1, 0]


@pytest.mark.parametrize("prompt", ["[[fail times=2]]", "[[write"])
async def test_refuses_directives_it_cannot_follow(cursor, prompt):
    agent = await (await cursor(prompt)).finish()

    assert agent.process.returncode == 1
    assert "directive" in agent.stderr


async def test_ends_as_the_api_does(cursor):
    agent = await (await cursor("[[error status=429 message=busy]]")).finish()

    assert (agent.process.returncode, agent.stderr) == (1, "Error: busy (429)\n")


async def test_ends_in_the_middle_of_a_line(cursor):
    agent = await (await cursor("[[cut]]")).finish()

    assert agent.process.returncode == 1
    with pytest.raises(ValueError, match="Unterminated"):
        assert agent.events


async def test_prints_what_is_not_json(cursor):
    agent = await (await cursor('[[garbage text="oh no"]]')).finish()

    assert "oh no" in agent.lines


async def test_floods(cursor):
    agent = await (await cursor("[[flood lines=2000 bytes=500]]")).finish()

    assert [len(line) + 1 for line in agent.lines if line.startswith("x")] == [500] * 2000


async def test_is_slow_or_silent(cursor):
    agent = await (await cursor("[[slow seconds=0.03]] [[silence seconds=0.2]] [[answer words=10]]")).finish()

    assert agent.result["duration_ms"] >= 500


async def test_ignores_sigterm(cursor):
    agent = await cursor("[[ignore_sigterm]] [[silence seconds=60]]")
    await agent.read_until('"user"')
    agent.process.send_signal(signal.SIGTERM)

    assert await _stays(agent)


async def test_ends_at_sigterm_otherwise(cursor):
    agent = await cursor("[[silence seconds=60]]")
    await agent.read_until('"user"')
    agent.process.terminate()

    assert await asyncio.wait_for(agent.process.wait(), 10) == -signal.SIGTERM


@pytest.mark.parametrize("keeps_pipes", ["true", "false"])
async def test_leaves_a_daemon_behind(cursor, tmp_path, eventually, keeps_pipes):
    pid_file = tmp_path / "daemon"
    agent = await cursor(f"[[daemon seconds=60 pid_file={pid_file} keeps_pipes={keeps_pipes}]]")
    # Not `process.wait()`: asyncio's waits for the pipes too, and the daemon may hold them.
    await eventually(lambda: agent.process.returncode is not None)
    daemon = psutil.Process(int(pid_file.read_text()))
    try:
        assert daemon.is_running()
        assert daemon.name() == "sleep"
    finally:
        daemon.kill()
