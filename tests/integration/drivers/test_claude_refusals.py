"""What the Claude driver says when there is no real CLI to speak to, or no way to start it."""

import json
import os
import signal

import pytest

from codefleet.domain.outcomes import Success
from codefleet.domain.retry import ErrorClass
from codefleet.execution.drivers import DriverError
from services.executor_claude.cli_driver import ClaudeCliDriver

INIT = json.dumps({"type": "system", "subtype": "init", "session_id": "s", "cwd": "/"})
RESULT = json.dumps(
    {"type": "result", "subtype": "success", "is_error": False, "terminal_reason": "completed", "result": "ok"}
)


async def refusal(stage, **parameters):
    with pytest.raises(DriverError) as refused:
        await stage.start("hello", **parameters)
    return refused.value.outcome


async def test_missing_credentials_name_the_variable(claude):
    claude.environment["ANTHROPIC_API_KEY"] = ""

    outcome = await refusal(claude)

    assert (outcome.error_class, outcome.code) == (ErrorClass.AUTHENTICATION, "MISSING_CREDENTIALS")
    assert "ANTHROPIC_API_KEY" in outcome.advice


@pytest.mark.parametrize("binary", ["/nonexistent/claude", "no-such-program"])
async def test_a_missing_binary_names_the_remedy(claude, tmp_path, binary):
    claude.driver = ClaudeCliDriver(binary=binary, data_dir=tmp_path / "data")

    outcome = await refusal(claude)

    assert (outcome.error_class, outcome.code) == (ErrorClass.CONFIGURATION, "CLAUDE_NOT_FOUND")
    assert "CODEFLEET_CLAUDE_BINARY" in outcome.advice


async def test_a_binary_that_cannot_run_is_a_configuration_failure(impostor, tmp_path):
    stage = impostor("")
    (tmp_path / "impostor").write_text("no program at all")

    outcome = await refusal(stage)

    assert (outcome.error_class, outcome.code) == (ErrorClass.CONFIGURATION, "AGENT_NOT_EXECUTABLE")


async def test_parameters_that_do_not_fit_are_refused(claude):
    assert (await refusal(claude, permission_mode="anything")).code == "INVALID_PARAMETERS"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user needs no sandbox")
async def test_root_goes_unasked_only_in_what_the_operators_call_a_sandbox(claude):
    del claude.environment["IS_SANDBOX"]

    outcome = await refusal(claude, permission_mode="bypassPermissions")

    assert (outcome.error_class, outcome.code) == (ErrorClass.CONFIGURATION, "ROOT_WITHOUT_SANDBOX")
    assert "IS_SANDBOX" in outcome.advice


async def test_only_what_the_driver_names_gets_into_the_environment(impostor):
    stage = impostor("env > env.txt")
    stage.environment |= {"AWS_SECRET_ACCESS_KEY": "secret", "CODEFLEET_MONGO_URL": "mongodb://secret", "LANG": "C"}

    await stage.play("hello")

    names = {line.partition("=")[0] for line in (stage.workspace / "env.txt").read_text().splitlines()}
    assert names - {"PWD", "_", "SHLVL", "OLDPWD"} == {
        *("PATH", "LANG", "HOME", "TMPDIR", "CODEFLEET_RUN", "CODEFLEET_LAUNCH"),
        *("ANTHROPIC_API_KEY", "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_MAX_RETRIES"),
        *("DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"),
    }


async def test_a_cli_that_stays_after_its_result_has_completed(impostor):
    run = await impostor(f"echo '{INIT}'; echo '{RESULT}'; sleep 300").play("hello")

    assert isinstance(run.outcome, Success)
    assert run.outcome.result["text"] == "ok"


async def test_a_result_that_is_followed_by_an_exit_takes_no_grace(impostor):
    run = await impostor(f"echo '{RESULT}'; setsid sleep 300 & exit 3").play("hello")

    assert (type(run.outcome), run.outcome.exit_code) == (Success, 3)


@pytest.mark.parametrize(
    ("script", "error_class", "code"),
    [
        (f"echo '{INIT}'; kill -9 $$", ErrorClass.TEMPORARY, "AGENT_KILLED"),
        (f"echo '{INIT}'; exit 143", ErrorClass.TEMPORARY, "AGENT_KILLED"),
        (f"echo '{INIT}'; echo oh dear >&2; exit 1", ErrorClass.TEMPORARY, "AGENT_DIED"),
        ("echo 'error: oh dear, unknown option' >&2; exit 1", ErrorClass.CONFIGURATION, "AGENT_REFUSED_TO_START"),
        ("exit 0", ErrorClass.TEMPORARY, "NO_RESULT"),
    ],
)
async def test_an_end_without_a_result_is_told_by_how_it_came(impostor, script, error_class, code):
    run = await impostor(script).play("hello")

    assert (run.outcome.error_class, run.outcome.code) == (error_class, code)
    if "oh dear" in script:
        assert "oh dear" in run.outcome.message
        assert "oh dear" in run.log("stderr")


async def test_sigkill_is_told_by_name(impostor):
    run = await impostor("kill -9 $$").play("hello")

    assert signal.SIGKILL.name in run.outcome.message


async def test_lines_that_are_no_events_are_logged_and_do_no_harm(impostor):
    line = "Segmentation fault {"
    run = await impostor(f"echo '{line}'; echo '[1]'; echo; echo '{RESULT}'").play("hello")

    assert run.log("stdout").splitlines() == [line, "[1]"]
    assert isinstance(run.outcome, Success)


async def test_an_enormous_line_is_left_out(impostor):
    run = await impostor(f"head -c 9000000 /dev/zero | tr '\\0' x; echo; echo '{RESULT}'").play("hello")

    assert run.log() == "a line of more than 8 MiB was left out"
    assert isinstance(run.outcome, Success)
