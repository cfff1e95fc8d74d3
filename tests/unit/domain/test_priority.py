from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codefleet.domain.priority import AGEING_SECONDS, parse_priority, ready_score
from codefleet.errors import InvalidFieldError

levels = st.integers(1, 10)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000),
)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("urgent", 10),
        ("critical", 10),
        ("high", 8),
        ("P0", 8),
        ("medium", 5),
        ("normal", 5),
        ("P1", 5),
        ("low", 3),
        ("background", 1),
        (" High ", 8),
        ("7", 7),
        (" 10 ", 10),
    ],
)
def test_names_and_written_numbers_are_understood(name: str, level: int):
    assert parse_priority(name) == level


@given(levels)
def test_every_level_in_range_is_accepted(level: int):
    assert parse_priority(level) == level
    assert parse_priority(str(level)) == level


@given(st.integers().filter(lambda value: not 1 <= value <= 10))
def test_numbers_out_of_range_are_refused(value: int):
    with pytest.raises(InvalidFieldError) as refused:
        parse_priority(value, field="p")
    assert refused.value.details["field"] == "p"


@pytest.mark.parametrize("word", ["", "p2", "1.5", "-1", "٣", "１", "0", "11", "nan", "9" * 5000, "5\0"])
def test_other_words_are_refused(word: str):
    with pytest.raises(InvalidFieldError):
        parse_priority(word)


@given(levels, levels, moments)
def test_of_tasks_of_one_moment_the_higher_priority_goes_first(one: int, other: int, moment: datetime):
    assert (ready_score(one, moment) < ready_score(other, moment)) == (one > other)


@given(levels, moments, moments)
def test_within_a_priority_who_came_first_goes_first(level: int, one: datetime, other: datetime):
    assert (ready_score(level, one) < ready_score(level, other)) == (one < other)


@given(st.integers(1, 9), st.integers(1, 9), moments, st.integers(1, 10_000))
def test_waiting_a_little_more_than_the_ageing_time_per_level_wins(level: int, levels_up: int, came: datetime, ms: int):
    higher = min(10, level + levels_up)
    head_start = timedelta(seconds=AGEING_SECONDS) * (higher - level)
    younger = came + head_start + timedelta(milliseconds=ms)
    assert ready_score(level, came) < ready_score(higher, younger)
    assert ready_score(level, came) == ready_score(higher, came + head_start)
    assert ready_score(higher, younger - timedelta(milliseconds=2 * ms)) < ready_score(level, came)


@given(levels, moments)
def test_a_score_is_exact_in_redis_and_does_not_depend_on_the_present(level: int, moment: datetime):
    # The score is a function of what never changes while a task waits, so the order of two tasks never does either.
    score = ready_score(level, moment)
    assert float(score) == score
    assert abs(score) < 2**53
    assert score == ready_score(level, moment)
