"""What a submission becomes, without any store."""

from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from codefleet.domain.identity import Identity, Role
from codefleet.domain.tasks import Task
from codefleet.errors import CodefleetError
from services.api.schemas.tasks import TaskSubmission
from services.api.submit import new_task

ALICE = Identity(user_id="alice", role=Role.SUBMITTER)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
FIELDS = [field.name for field in msgspec.structs.fields(TaskSubmission)]


def made(**fields: Any) -> Task:
    return new_task(msgspec.convert(fields, TaskSubmission), ALICE, (Path("/srv"),))


def test_the_name_is_the_first_line_cut_and_printable():
    assert made(prompt="\n\n  first \nsecond").name == "first "
    assert made(prompt="x" * 200).name == "x" * 80 + "…"
    assert made(prompt="a\tb\x1b[0m").name == "a b [0m"
    assert made(command="review", args=["src"]).name == "review"
    assert made(type="diagnostic").name == "diagnostic"
    assert made(prompt="x", name="  ").name == "x"
    assert made(prompt="x", name=" mine ").name == "mine"


def test_equal_tags_are_kept_once_in_order():
    assert made(prompt="x", tags=["b", "a", "b"]).tags == ["b", "a"]


def test_a_directory_under_a_root_is_kept():
    assert made(prompt="x", work_directory="/srv/a/").work_directory == "/srv/a"
    assert made(prompt="x", work_directory="").work_directory == ""


def test_a_command_leaves_the_prompt_empty():
    task = made(command="review", args=["--strict"])
    assert (task.prompt, task.command, task.args) == ("", "review", ["--strict"])


def test_the_owner_is_who_asks():
    task = made(prompt="x")
    assert (task.user_id, task.history[0].actor, task.history[0].to) == ("alice", "user:alice", "pending")


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6))
def test_whatever_is_sent_becomes_a_task_or_a_refusal(fields):
    try:
        task = made(**fields)
    except (msgspec.ValidationError, CodefleetError):
        return
    assert task.user_id == "alice"
    assert 1 <= task.priority <= 10
