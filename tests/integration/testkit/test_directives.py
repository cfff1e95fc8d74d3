"""The directive language."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codefleet_testkit.directives import Answer, DirectiveError, Error, IgnoreSigterm, Run, Tool, Write, parse
from codefleet_testkit.programs import compile_prompt, words


def test_directives_are_found_anywhere_and_in_order():
    found = parse(
        'Please [[write path=a/b.md text="two\\nlines ]] here"]] and\n[[run command="ls -l"]]; [[ignore_sigterm]]!'
    )

    assert found == (Write(path="a/b.md", text="two\nlines ]] here"), Run(command="ls -l"), IgnoreSigterm())


def test_values_are_bare_words_strings_or_json():
    assert parse('[[tool name=mcp__a__b input={"x": [1, "]]"]}]]') == (Tool(name="mcp__a__b", input={"x": [1, "]]"]}),)
    assert parse("[[error status=429 retry_after=0.5 midstream=true]]") == (
        Error(status=429, retry_after=0.5, midstream=True),
    )


@pytest.mark.parametrize("text", ["", 'if [[ -n "$x" ]]; then', "a [[wiki link]]", "[[writer]]", "[write path=a]"])
def test_other_brackets_are_left_alone(text):
    assert parse(text) == ()


@pytest.mark.parametrize(
    "text", ["[[write]]", "[[write path=a", "[[write path=a colour=red]]", "[[error status=many]]", '[[run command="]]']
)
def test_a_malformed_directive_is_an_error_that_quotes_it(text):
    with pytest.raises(DirectiveError, match=r"\[\["):
        parse(text)


@given(st.text(max_size=200))
def test_any_text_survives_as_a_string(text):
    assert parse(f"before [[answer text={json.dumps(text)}]] after") == (Answer(text=text),)


def test_a_fault_belongs_to_the_turn_that_follows():
    program = compile_prompt("[[write path=a]] [[error status=500]] [[run command=b]] [[run command=c parallel=true]]")

    assert [len(turn.steps) for turn in program.turns] == [1, 2, 0]
    assert [len(turn.before) for turn in program.turns] == [0, 1, 0]


@given(st.text(max_size=100))
def test_a_text_in_words_is_still_the_text(text):
    assert "".join(words(text)) == text
