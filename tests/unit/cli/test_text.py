"""Words for people, and text that cannot steer a terminal."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codefleet_cli import text

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("plain ü ✓ 日本", "plain ü ✓ 日本"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b]0;title", "0;title"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("\x9b2Jx\x9d0;t\x9cy", "xy"),
        ("a\x00\x08\x7f\x85b\tc", "ab\tc"),
        ("50%\r100%\r\n", "50%100% "),
        ("abc\u202etxt.exe", "abctxt.exe"),
        ("half \ud83d pair", "half  pair"),
        ("\x1b\x1b[[31mx", "31mx"),
    ],
)
def test_escapes_and_controls_are_taken_out(dirty, clean):
    assert text.clean(dirty) == clean


@given(st.text() | st.text("\x1b[]\\;0m\x07\x9b\x9c\x9d\r\n\tPx"))
def test_nothing_that_steers_is_left(dirty):
    left = text.clean(dirty, multiline=True)
    assert all(character in "\t\n" or not ord(character) < 32 for character in left)
    assert not any(127 <= ord(character) < 160 for character in left)
    io.TextIOWrapper(io.BytesIO(), encoding="utf-8").write(left)


def test_lines_are_kept_when_asked():
    assert text.clean("a\r\nb\nc", multiline=True) == "a\nb\nc"
    assert text.clean("a\nb") == "a b"


def test_a_long_hostile_text_takes_no_long_time():
    for piece in ("\x1b]", "\x9d", "\x1b[0;", "\x1bP\x9d"):
        text.clean(piece * 200_000)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (-3, "0.0s"),
        (0.44, "0.4s"),
        (59.9, "59.9s"),
        (187, "3m07s"),
        (7500, "2h05m"),
        (273_600, "3d04h"),
    ],
)
def test_durations(seconds, words):
    assert text.duration(seconds) == words


@pytest.mark.parametrize(("seconds", "words"), [(-5, "0s"), (5, "5s"), (185, "3m"), (7_500, "2h"), (400_000, "4d")])
def test_ages(seconds, words):
    assert text.age(NOW - timedelta(seconds=seconds), NOW) == words
    assert text.age(None, NOW) == "-"


def test_amounts():
    assert [text.count(n) for n in (0, 999, 12_345, 4_560_000)] == ["0", "999", "12.3k", "4.56M"]
    assert [text.money(n) for n in (0.0042, 12.5)] == ["$0.0042", "$12.50"]
    assert text.mebibytes(300 * 2**20) == "300 MiB"
