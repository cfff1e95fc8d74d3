import pytest

from codefleet.domain.queues import QUEUE_OF, Executor, Queue, queues_served
from codefleet.errors import InvalidFieldError
from codefleet.tasktypes.registry import (
    DEFAULT_TYPE,
    TASK_TYPES,
    check_executor,
    check_parameters,
    find_task_type,
)

AGENT = TASK_TYPES["agent"]
DIAGNOSTIC = TASK_TYPES["diagnostic"]


def test_every_type_can_run_on_its_default_executor():
    assert DEFAULT_TYPE in TASK_TYPES
    for name, type_ in TASK_TYPES.items():
        assert type_.name == name
        assert type_.default_executor in type_.parameters
        # What an agent runs must name its agent: any executor can only run functions.
        assert type_.function is not None or Executor.ANY not in type_.parameters


def test_every_queue_is_served():
    served = {queue for executor in (Executor.CLAUDE, Executor.CURSOR) for queue in queues_served(executor)}
    assert served == set(Queue)
    assert set(QUEUE_OF) == set(Executor)


def test_an_unknown_type_is_refused_with_the_known_ones():
    with pytest.raises(InvalidFieldError, match="diagnostic") as refused:
        find_task_type("agnet")
    assert refused.value.details["field"] == "type"


def test_the_executor_must_run_the_type():
    assert check_executor(AGENT, None) is Executor.CLAUDE
    assert check_executor(AGENT, "cursor") is Executor.CURSOR
    for name in ("any", "gpt", "", "CLAUDE"):
        with pytest.raises(InvalidFieldError) as refused:
            check_executor(AGENT, name)
        assert refused.value.details["field"] == "executor"


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"model": "-x"}, "parameters.model"),
        ({"model": "--dangerously-skip-permissions"}, "parameters.model"),
        ({"model": ""}, "parameters.model"),
        ({"model": "m" * 201}, "parameters.model"),
        ({"model": "a\0b"}, "parameters.model"),
        ({"model": 1}, "parameters.model"),
        ({"allowed_tools": ["Read", "-rm"]}, "parameters.allowed_tools[1]"),
        ({"allowed_tools": ["x"] * 101}, "parameters.allowed_tools"),
        ({"max_turns": 0}, "parameters.max_turns"),
        ({"max_turns": 2**63}, "parameters.max_turns"),
        ({"max_budget_usd": float("nan")}, "parameters.max_budget_usd"),
        ({"permission_mode": "yolo"}, "parameters.permission_mode"),
        ({"$where": "1"}, "parameters"),
        ({"unknown": 1}, "parameters"),
    ],
)
def test_a_bad_agent_parameter_is_refused_by_name(parameters: dict[str, object], field: str):
    with pytest.raises(InvalidFieldError) as refused:
        check_parameters(AGENT, Executor.CLAUDE, parameters)
    assert refused.value.details["field"] == field


def test_good_parameters_come_back_as_given():
    given = {"model": "opus", "allowed_tools": ["Bash(pytest *)"], "max_turns": 3}
    assert check_parameters(AGENT, Executor.CLAUDE, given) == given
    assert check_parameters(DIAGNOSTIC, Executor.ANY, {}) == {}


def test_each_agent_has_a_schema_of_its_own():
    check_parameters(AGENT, Executor.CURSOR, {"force": False})
    with pytest.raises(InvalidFieldError):
        check_parameters(AGENT, Executor.CLAUDE, {"force": False})
