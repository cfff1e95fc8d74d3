"""The driver and the Cursor double: the documented protocol, and each fault that was reported of the real one."""

import msgspec
import pytest

from codefleet.domain.outcomes import Failed, Success
from codefleet.domain.retry import ErrorClass
from codefleet.execution.drivers import DriverError, Session
from services.executor_cursor.driver import CursorDriver


async def refusal(stage, prompt="hello", **parameters):
    with pytest.raises(DriverError) as refused:
        await stage.start(prompt, **parameters)
    return refused.value.outcome


async def test_writes_a_file_and_tells_about_it(cursor):
    run = await cursor.play('[[write path=a/b.md text="hi\\n"]] [[run command="cat a/b.md"]]', model="gpt-5")

    assert (cursor.workspace / "a/b.md").read_text() == "hi\n"
    (session,) = run.of(Session)
    assert session.model == "gpt-5"
    assert isinstance(run.outcome, Success)
    assert run.outcome.result["session_id"] == session.session_id
    assert run.outcome.result["text"].endswith("Done: write a/b.md, run `cat a/b.md`.")
    assert run.log().splitlines() == [
        "I will write a/b.md.",
        "→ Write a/b.md",
        "← done",
        "I will run `cat a/b.md`.",
        "→ Shell cat a/b.md",
        "← hi",
        "Done: write a/b.md, run `cat a/b.md`.",
    ]
    assert run.steps == ["Write a/b.md", "Shell cat a/b.md"]


async def test_reports_usage_with_the_time_and_memory_of_the_processes(cursor):
    run = await cursor.play("[[usage input_tokens=7 output_tokens=5]]")

    assert (run.usage.input_tokens, run.usage.output_tokens) == (7, 5)
    assert run.usage.cpu_seconds > 0
    assert run.usage.max_memory_bytes > 1_000_000


@pytest.mark.parametrize(
    "prompt", ["--help", "-p", "login", "\"quotes' and\n\nline ends, $HOME `id` \\ ü 🚀", "nul \0 inside"]
)
async def test_any_prompt_is_a_prompt(cursor, prompt):
    run = await cursor.play(prompt)

    assert isinstance(run.outcome, Success)
    assert " ".join(prompt.replace("\0", "").split()) in run.outcome.result["text"]


async def test_a_prompt_that_no_command_line_holds_is_told_with_advice(cursor):
    outcome = await refusal(cursor, "a" * 300_000)

    assert (outcome.error_class, outcome.code) == (ErrorClass.VALIDATION, "PROMPT_TOO_LONG")
    assert "file" in outcome.advice


async def test_a_failing_command_is_told_and_the_run_goes_on(cursor):
    run = await cursor.play('[[run command="echo oh; exit 3"]] [[read path=nope]]')

    assert isinstance(run.outcome, Success)
    assert "✗ exit code 3 oh" in run.log("agent")
    assert "✗ [Errno 2]" in run.log("agent")


async def test_rejected_calls_are_in_the_result(cursor):
    run = await cursor.play('[[rejected reason="not today"]] [[write path=a]] [[write path=b]]')

    assert isinstance(run.outcome, Success)
    assert run.outcome.result["rejected_tool_calls"] == [{"call": "Write a", "reason": "not today"}]
    assert "✗ not allowed: not today" in run.log("system")
    assert [file.name for file in cursor.workspace.iterdir()] == ["b"]


async def test_without_force_the_log_says_what_would_help(cursor):
    run = await cursor.play("[[write path=a]]", force=False)

    assert "parameters.force" in run.log("system")
    assert list(cursor.workspace.iterdir()) == []


async def test_a_process_that_stays_after_its_result_has_completed(cursor):
    run = await cursor.play("[[linger]] [[answer text=Done]]")

    assert isinstance(run.outcome, Success)


async def test_a_daemon_that_holds_the_pipes_holds_up_nothing(cursor):
    run = await cursor.play("[[daemon seconds=300 keeps_pipes=true]]")

    assert isinstance(run.outcome, Success)


async def test_types_that_are_not_documented_are_mentioned_once(cursor):
    emit = '[[emit event={"type": "hologram"}]]'
    run = await cursor.play(f"[[thinking]] [[query]] {emit} {emit}")

    assert isinstance(run.outcome, Success)
    assert run.log("system").splitlines() == ["events that codefleet does not know are left out: hologram"]


async def test_call_ids_with_a_line_end_do_no_harm(cursor):
    run = await cursor.play("[[newline_ids]] [[write path=a]]")

    assert isinstance(run.outcome, Success)
    assert "→ Write a\n← done" in run.log("agent")


async def test_lines_that_are_no_events_are_logged(cursor):
    run = await cursor.play('[[garbage text="oh no {"]] [[flood lines=2000 bytes=500]]')

    assert isinstance(run.outcome, Success)
    assert len(run.log("stdout").splitlines()) == 2001


async def test_nothing_done_and_nothing_said_is_no_success(cursor, tmp_path):
    program = tmp_path / "does-nothing"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    cursor.driver = CursorDriver(binary=str(program), data_dir=tmp_path / "data")

    run = await cursor.play("hello")

    assert (run.outcome.error_class, run.outcome.code) == (ErrorClass.TEMPORARY, "NO_RESULT")


@pytest.mark.parametrize(
    ("prompt", "error_class"),
    [
        ('[[error status=429 message="busy"]]', ErrorClass.RATE_LIMIT),
        ("[[error status=401]]", ErrorClass.AUTHENTICATION),
        ("[[error status=503]]", ErrorClass.SERVICE_UNAVAILABLE),
        ('[[fail stderr="ConnectError: [unavailable] read ECONNRESET"]]', ErrorClass.SERVICE_UNAVAILABLE),
        ('[[fail stderr="Error: getaddrinfo ENOTFOUND api2.cursor.sh"]]', ErrorClass.CONNECTION),
        ('[[fail exit_code=7 stderr="Error: out of luck"]]', ErrorClass.TEMPORARY),
        ("[[write path=a]] [[fail]]", ErrorClass.TEMPORARY),
        ("[[cut]]", ErrorClass.TEMPORARY),
        ("[[write", ErrorClass.CONFIGURATION),
    ],
)
async def test_the_class_of_a_failure_is_in_its_words(cursor, prompt, error_class):
    run = await cursor.play(prompt)

    assert isinstance(run.outcome, Failed)
    assert run.outcome.error_class == error_class
    assert run.outcome.exit_code in {1, 7}
    assert all(line in run.outcome.message for line in run.log("stderr").splitlines())


async def test_a_refused_key_is_told_with_advice(cursor):
    cursor.environment["CURSOR_API_KEY"] = "invalid"
    run = await cursor.play("hello")

    assert run.outcome.error_class == ErrorClass.AUTHENTICATION
    assert "CURSOR_API_KEY" in run.outcome.advice


async def test_missing_credentials_name_the_variable(cursor):
    del cursor.environment["CURSOR_API_KEY"]

    outcome = await refusal(cursor)

    assert (outcome.error_class, outcome.code) == (ErrorClass.AUTHENTICATION, "MISSING_CREDENTIALS")
    assert "CURSOR_API_KEY" in outcome.advice


async def test_a_missing_binary_names_the_remedy(cursor, tmp_path):
    cursor.driver = CursorDriver(binary="", data_dir=tmp_path / "data")
    cursor.environment["PATH"] = str(tmp_path / "empty")

    outcome = await refusal(cursor)

    assert (outcome.error_class, outcome.code) == (ErrorClass.CONFIGURATION, "CURSOR_NOT_FOUND")
    assert "CODEFLEET_CURSOR_BINARY" in outcome.advice


async def test_the_binary_is_found_on_path(cursor, tmp_path):
    cursor.driver = CursorDriver(binary="", data_dir=tmp_path / "data")
    cursor.environment["PATH"] = f"{tmp_path}:{cursor.environment['PATH']}"

    assert isinstance((await cursor.play("hello")).outcome, Success)


async def test_a_stop_kills_what_will_not_hear(cursor):
    run = await cursor.start("[[ignore_sigterm]] [[daemon seconds=300]] [[silence seconds=300]]")
    await run.until(lambda: any(process.name() == "sleep" for process in run.processes()))

    await run.run.stop(grace_seconds=0.2)

    assert run.processes() == []
    assert (await run.finish()).outcome.code == "STOPPED"


async def test_the_key_is_on_no_command_line_and_in_no_event(cursor):
    run = await cursor.start("[[run command=env]] [[silence seconds=300]]")
    await run.until(lambda: "← " in run.log("agent"))
    command_lines = [" ".join(process.cmdline()) for process in run.processes()]
    await run.run.stop(grace_seconds=0.2)
    await run.finish()

    key = cursor.environment["CURSOR_API_KEY"]
    assert command_lines
    assert not any(key in line for line in command_lines)
    assert key not in msgspec.json.encode([str(event) for event in run.events]).decode()
