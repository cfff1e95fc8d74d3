"""The driver and the real Claude Code CLI, in front of the stand-in for the API."""

import json

import msgspec
import pytest

from codefleet.domain.outcomes import Failed, Success
from codefleet.domain.retry import ErrorClass
from codefleet.execution.drivers import Session

MAY_RUN = {"allowed_tools": ["Bash(*)"]}


async def test_writes_a_file_and_tells_about_it(claude):
    run = await claude.play('Please: [[write path=HELLO.md text="hi"]]')

    assert (claude.workspace / "HELLO.md").read_text() == "hi"
    assert run.outcome == Success(
        result={"text": "Done: write HELLO.md.", "session_id": run.context.session_id, "num_turns": 2}, exit_code=0
    )
    assert [session.session_id for session in run.of(Session)] == [run.context.session_id]
    assert run.log().splitlines() == [
        "I will write HELLO.md.",
        "→ Write HELLO.md",
        *(line for line in run.log().splitlines() if line.startswith("← File created successfully")),
        "Done: write HELLO.md.",
    ]
    assert run.steps == ["Write HELLO.md"]


async def test_reports_usage_with_the_time_and_memory_of_the_processes(claude):
    run = await claude.play("[[usage input_tokens=1000 output_tokens=10]] [[answer text=Done]]")

    assert (run.usage.input_tokens, run.usage.output_tokens) == (1000, 10)
    assert run.usage.cost_usd > 0
    assert run.usage.cpu_seconds > 0
    assert run.usage.max_memory_bytes > 50_000_000


async def test_takes_several_turns_and_runs_commands(claude):
    run = await claude.play('[[write path=a text="1\\n2\\n"]] [[run command="wc -l < a > n"]]', **MAY_RUN)

    assert (claude.workspace / "n").read_text().strip() == "2"
    assert run.outcome.result["num_turns"] == 3
    assert run.steps == ["Write a", "Bash wc -l < a > n"]


async def test_keeps_sessions_but_no_scratch(claude):
    run = await claude.play("hello")

    kept = (claude.directory / "data" / "claude").rglob(f"{run.context.session_id}.jsonl")
    assert len(list(kept)) == 1


@pytest.mark.parametrize(
    "prompt",
    [
        "--help",
        "-p",
        "/help",
        "-",
        "\"quotes' and\n\n\nline ends, $HOME `id` \\ ü 🚀",
        "a" * 300_000,
        "nul \0 inside",
    ],
)
async def test_any_prompt_arrives_as_it_is(claude, server, prompt):
    run = await claude.play(prompt)

    assert isinstance(run.outcome, Success)
    bodies = [json.dumps(request.body, ensure_ascii=False) for request in server.requests]
    assert any(json.dumps(prompt, ensure_ascii=False).strip('"') in body for body in bodies)


async def test_goes_on_after_a_rate_limit_that_passes(claude):
    claude.environment["CLAUDE_CODE_MAX_RETRIES"] = "2"
    run = await claude.play("[[error status=429 retry_after=0 times=1]] [[answer text=Done]]")

    assert run.outcome.result["text"] == "Done"
    assert "the API asked to wait" in run.log("system")
    assert "(429 rate_limit), attempt 1 of 2" in run.log("system")


async def test_a_rate_limit_that_stays_says_when_to_come_back(claude):
    claude.environment["CLAUDE_CODE_MAX_RETRIES"] = "1"
    run = await claude.play("[[error status=429 retry_after=1]]")

    assert (run.outcome.error_class, run.outcome.code) == (ErrorClass.RATE_LIMIT, "API_RATE_LIMITED")
    assert 1 <= run.outcome.retry_after_seconds < 5


@pytest.mark.parametrize(
    ("prompt", "error_class"),
    [
        ("[[error status=400]]", ErrorClass.VALIDATION),
        ("[[error status=401]]", ErrorClass.AUTHENTICATION),
        ("[[error status=403]]", ErrorClass.AUTHENTICATION),
        ("[[error status=404]]", ErrorClass.CONFIGURATION),
        ("[[error status=429]]", ErrorClass.RATE_LIMIT),
        ("[[error status=500]]", ErrorClass.SERVICE_UNAVAILABLE),
        ("[[error status=529]]", ErrorClass.SERVICE_UNAVAILABLE),
        ("[[write path=a text=1]] [[error status=529]]", ErrorClass.SERVICE_UNAVAILABLE),
        ("[[error status=529 midstream=true]]", ErrorClass.CONNECTION),
        ("[[cut]]", ErrorClass.CONNECTION),
        ('[[error status=400 message="Your credit balance is too low"]]', ErrorClass.CONFIGURATION),
    ],
)
async def test_what_stays_wrong_with_the_api_is_the_class_of_the_failure(claude, prompt, error_class):
    run = await claude.play(prompt)

    assert isinstance(run.outcome, Failed)
    assert run.outcome.error_class == error_class
    assert run.outcome.message


async def test_a_refused_key_is_told_with_advice(claude):
    claude.environment["ANTHROPIC_API_KEY"] = "invalid"
    run = await claude.play("hello")

    assert run.outcome.error_class == ErrorClass.AUTHENTICATION
    assert "ANTHROPIC_API_KEY" in run.outcome.advice


async def test_an_api_that_is_not_there_is_a_connection_failure(claude):
    claude.environment["ANTHROPIC_BASE_URL"] = "http://127.0.0.1:1"
    run = await claude.play("hello")

    assert (run.outcome.error_class, run.outcome.code) == (ErrorClass.CONNECTION, "API_CONNECTION_FAILED")


async def test_a_slow_answer_arrives(claude):
    run = await claude.play("[[slow seconds=0.05]] [[answer words=10]]")

    assert len(run.outcome.result["text"].split()) == 10


@pytest.mark.parametrize(
    ("limits", "code"), [({"max_turns": 1}, "MAX_TURNS_REACHED"), ({"max_budget_usd": 0.001}, "MAX_BUDGET_REACHED")]
)
async def test_a_limit_is_not_retried_and_says_what_to_raise(claude, limits, code):
    run = await claude.play("[[run command=true]] [[run command=true]]", **MAY_RUN, **limits)

    assert (run.outcome.error_class, run.outcome.code) == (ErrorClass.CONFIGURATION, code)
    assert next(iter(limits)) in run.outcome.advice
    assert run.usage.input_tokens > 0


async def test_a_refused_tool_is_in_the_result_of_an_otherwise_successful_run(claude):
    run = await claude.play("[[write path=a text=1]]", permission_mode="dontAsk")

    assert isinstance(run.outcome, Success)
    assert [denial["tool_name"] for denial in run.outcome.result["permission_denials"]] == ["Write"]
    assert "✗ Write was not allowed" in run.log("system")
    assert "parameters.allowed_tools" in run.log("system")


async def test_the_settings_of_a_repository_are_kept_out(claude):
    hook = {"hooks": [{"type": "command", "command": "touch hooked"}]}
    settings = {"hooks": {"SessionStart": [hook], "PreToolUse": [{"matcher": "*", **hook}]}}
    (claude.workspace / ".claude").mkdir()
    (claude.workspace / ".claude" / "settings.json").write_text(json.dumps(settings))
    mcp = {"mcpServers": {"evil": {"command": "/bin/sh", "args": ["-c", "touch called"]}}}
    (claude.workspace / ".mcp.json").write_text(json.dumps(mcp))

    await claude.play("[[write path=a text=1]]")

    assert sorted(file.name for file in claude.workspace.iterdir()) == [".claude", ".mcp.json", "a"]


async def test_a_stop_kills_the_whole_tree_in_the_middle_of_a_command(claude):
    run = await claude.start('[[run command="echo $$ > pid; exec sleep 300"]]', **MAY_RUN)
    await run.until(lambda: any(process.name() == "sleep" for process in run.processes()))

    await run.run.stop(grace_seconds=1.0)

    assert run.processes() == []
    assert (await run.finish()).outcome.code == "STOPPED"


async def test_a_stop_ends_a_silent_run_at_once(claude, server):
    run = await claude.start("[[silence seconds=300]]")
    await run.until(lambda: any(request.path == "/v1/messages" for request in server.requests))

    await run.run.stop(grace_seconds=0.0)

    assert run.processes() == []
    assert (await run.finish()).outcome.code == "STOPPED"


async def test_a_run_ends_with_its_lease_unless_it_is_renewed(claude):
    renewed = await claude.start("[[silence seconds=1.5]] [[answer text=Done]]", lease_seconds=1.0)
    renewed.run.renew(60.0)
    lost = await claude.play("[[silence seconds=300]]", lease_seconds=1.0)

    assert lost.outcome.code == "LEASE_ENDED"
    assert (await renewed.finish()).outcome.result["text"] == "Done"


async def test_the_key_is_on_no_command_line_and_in_no_event(claude, server):
    key = claude.environment["ANTHROPIC_API_KEY"]
    prompt = "[[run command=env]] [[silence seconds=300 times=1]]"
    run = await claude.start(prompt, permission_mode="bypassPermissions")
    await run.until(lambda: sum(request.path == "/v1/messages" for request in server.requests) == 2)
    command_lines = [" ".join(process.cmdline()) for process in run.processes()]
    await run.run.stop(grace_seconds=1.0)
    await run.finish()

    assert command_lines
    assert not any(key in line or prompt in line for line in command_lines)
    assert "← " in run.log("agent")
    assert key not in msgspec.json.encode([str(event) for event in run.events]).decode()
