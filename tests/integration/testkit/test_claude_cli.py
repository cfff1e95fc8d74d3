"""The real Claude Code CLI does what the directives say, so the stand-in speaks the API well enough."""

import uuid

import pytest


async def test_a_free_prompt_gets_a_friendly_answer(claude, workspace):
    agent = await (await claude("Please make my code better")).finish()

    assert agent.process.returncode == 0
    assert agent.result["subtype"] == "success"
    assert agent.result["terminal_reason"] == "completed"
    assert not agent.result["is_error"]
    assert "stand-in" in agent.result["result"]
    assert "Please make my code better" in agent.result["result"]
    assert list(workspace.iterdir()) == []


async def test_writes_a_file_where_it_works(claude, workspace):
    agent = await (await claude('Do this: [[write path=HELLO.md text="hi"]] thanks')).finish()

    assert (workspace / "HELLO.md").read_text() == "hi"
    assert agent.result["result"] == "Done: write HELLO.md."


async def test_takes_several_turns_and_counts_failed_steps(claude, workspace):
    agent = await (
        await claude(
            '[[write path=a.txt text="1\\n2\\n"]] [[run command="wc -l < a.txt > n"]] [[run command="exit 3"]]'
        )
    ).finish()

    assert (workspace / "n").read_text().strip() == "2"
    assert agent.result["num_turns"] == 4
    assert agent.result["result"].endswith("1 of 3 steps did not work.")


async def test_calls_tools_in_parallel(claude, server, workspace):
    await (await claude("[[write path=a text=1]] [[write path=b text=2 parallel=true]]")).finish()

    assert ((workspace / "a").read_text(), (workspace / "b").read_text()) == ("1", "2")
    assert len(server.requests) == 2


async def test_reports_usage_and_cost(claude):
    agent = await (await claude("[[usage input_tokens=1000 output_tokens=10]] [[answer text=Done]]")).finish()

    assert agent.result["result"] == "Done"
    assert (agent.result["usage"]["input_tokens"], agent.result["usage"]["output_tokens"]) == (1000, 10)
    assert agent.result["total_cost_usd"] > 0


async def test_goes_on_after_a_rate_limit_that_passes(claude):
    agent = await (await claude("[[error status=429 retry_after=0 times=1]]", retries=2)).finish()

    assert [retry["error_status"] for retry in agent.of_type("system", "api_retry")] == [429]
    assert agent.result["terminal_reason"] == "completed"


@pytest.mark.parametrize("status", [401, 429, 500, 529])
async def test_an_error_that_stays_ends_the_run(claude, server, status):
    agent = await (await claude(f"[[error status={status}]]")).finish()

    assert agent.process.returncode == 1
    assert agent.result["is_error"]
    assert (agent.result["subtype"], agent.result["terminal_reason"]) == ("success", "api_error")
    assert agent.result["api_error_status"] == status
    assert len(server.requests) == 1


async def test_an_error_may_hit_a_later_turn(claude, workspace):
    agent = await (await claude("[[write path=a text=1]] [[error status=529]]")).finish()

    assert (workspace / "a").exists()
    assert agent.result["api_error_status"] == 529


async def test_a_refused_key_ends_the_run(claude):
    agent = await (await claude("hello", key="invalid")).finish()

    assert agent.result["api_error_status"] == 401


async def test_a_cut_stream_is_retried(claude):
    agent = await (await claude("[[cut times=1]] [[answer words=20]]", retries=1)).finish()

    assert len(agent.of_type("system", "api_retry")) == 1
    assert len(agent.result["result"].split()) == 20


async def test_a_stream_that_is_always_cut_ends_the_run(claude):
    agent = await (await claude("[[cut]]")).finish()

    assert agent.result["terminal_reason"] == "api_error"
    assert agent.result["api_error_status"] is None


async def test_an_error_within_a_stream_ends_the_run(claude):
    agent = await (await claude("[[error status=529 midstream=true]]")).finish()

    assert agent.result["terminal_reason"] == "api_error"


@pytest.mark.parametrize("fault", ["[[silence seconds=0.6]]", "[[slow seconds=0.06]] [[answer words=10]]"])
async def test_a_slow_answer_arrives(claude, fault):
    agent = await (await claude(fault)).finish()

    assert agent.result["terminal_reason"] == "completed"
    assert agent.result["duration_api_ms"] >= 600


async def test_a_refused_tool_is_a_step_that_did_not_work(claude, workspace):
    agent = await (await claude("[[write path=a text=1]]", "--permission-mode", "dontAsk")).finish()

    assert not (workspace / "a").exists()
    assert [denial["tool_name"] for denial in agent.result["permission_denials"]] == ["Write"]
    assert agent.result["result"].endswith("1 of 1 steps did not work.")


async def test_a_tool_that_is_not_offered_is_not_called(claude):
    agent = await (await claude("[[tool name=mcp__no__such]]")).finish()

    assert agent.result["result"] == "I cannot call mcp__no__such: I was given no tool for it."


async def test_a_killed_run_goes_on_where_it_was(claude, server, workspace, eventually):
    flags = ("--dangerously-skip-permissions",)
    session = str(uuid.uuid4())
    steps = '[[run command="echo 1 >> n"]] [[silence seconds=60 times=1]] [[run command="echo 2 >> n"]]'
    killed = await claude(steps, *flags, "--session-id", session)
    await eventually(lambda: len(server.requests) == 2)
    killed.process.kill()
    await killed.finish()

    agent = await (await claude("Go on.", *flags, "--resume", session)).finish()

    assert (workspace / "n").read_text().split() == ["1", "2"]
    assert agent.result["terminal_reason"] == "completed"


async def test_a_new_prompt_in_a_finished_session_is_answered(claude):
    session = str(uuid.uuid4())
    flags = ("--dangerously-skip-permissions",)
    await (await claude("[[write path=a text=1]]", *flags, "--session-id", session)).finish()

    agent = await (await claude("And now?", *flags, "--resume", session)).finish()

    assert "“And now?”" in agent.result["result"]
