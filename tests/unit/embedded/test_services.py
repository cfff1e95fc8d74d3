"""How many of each service, and what a service's end means."""

import json

import pytest

from codefleet.embedded.services import explain, parse_scale
from codefleet.errors import ConfigurationError


def test_scale_is_read_and_the_last_word_counts():
    assert parse_scale(["executor-claude=2", "monitor=0", "executor-claude=3"]) == {"executor-claude": 3, "monitor": 0}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("printer=1", "expected one of api, scheduler"),
        ("monitor=-1", "at least 0"),
        ("monitor", "at least 0"),
        ("monitor=²", "at least 0"),
        ("api=0", "at least 1"),
        ("scheduler=0", "at least 1"),
    ],
)
def test_a_wrong_scale_is_refused_with_what_was_expected(value, expected):
    with pytest.raises(ConfigurationError, match=expected):
        parse_scale([value])


def test_the_last_error_event_explains_an_end():
    lines = [json.dumps({"event": "boom", "level": "error", "error": "disk full"}), json.dumps({"event": "bye"})]
    assert explain(1, lines).reason == "exit 1: boom: disk full"


def test_the_last_line_of_an_exception_explains_an_end():
    event = {"event": "crashed", "level": "critical", "exception": "Traceback\n  …\nValueError: no\n"}
    assert explain(1, [json.dumps(event)]).reason == "exit 1: crashed: ValueError: no"


def test_a_plain_traceback_explains_an_end():
    assert explain(1, ["Traceback …", "ValueError: no", ""]).reason == "exit 1: ValueError: no"


def test_silence_is_said():
    assert explain(-9, []).reason == "exit -9: no error was printed"


def test_a_missing_package_is_final_and_names_the_remedy():
    failure = explain(1, ["ModuleNotFoundError: No module named 'granian'"])
    assert failure.final
    assert "pip install 'codefleet[all]'" in failure.reason


def test_a_taken_port_names_the_remedy():
    assert "another --port" in explain(1, ["OSError: [Errno 98] Address already in use"]).reason
