import pytest
from hypothesis import given
from hypothesis import strategies as st

from codefleet.domain.retry import MAX_BACKOFF_SECONDS, RETRIABLE, ErrorClass, backoff_seconds, may_retry


def test_what_may_pass_by_itself_is_retriable_and_nothing_else():
    assert {*RETRIABLE} == {
        "connection",
        "timeout",
        "rate_limit",
        "temporary",
        "service_unavailable",
        "worker_lost",
    }
    assert {*ErrorClass} - RETRIABLE == {
        *("authentication", "permission", "validation", "syntax", "configuration"),
        *("security", "data_corruption", "system_failure"),
    }


@given(st.sampled_from(ErrorClass), st.integers(0, 20), st.integers(0, 20))
def test_only_retriable_errors_are_retried_and_only_within_the_limit(class_: ErrorClass, count: int, limit: int):
    assert may_retry(class_, retry_count=count, max_retries=limit) == (class_ in RETRIABLE and count < limit)


@given(st.integers(0, 10**6), st.floats(0, 1e300), st.floats(0, 1))
def test_the_delay_stays_within_a_fifth_below_the_exponential(count: int, base: float, jitter: float):
    full = min(MAX_BACKOFF_SECONDS, base * 2 ** min(count, 30))
    assert 0.8 * full - 1e-6 <= backoff_seconds(count, base_seconds=base, jitter=jitter) <= full


@given(st.integers(0, 100), st.floats(0.001, 600), st.floats(0, 1))
def test_the_delay_never_falls_and_grows_up_to_the_cap(count: int, base: float, jitter: float):
    now = backoff_seconds(count, base_seconds=base, jitter=jitter)
    following = backoff_seconds(count + 1, base_seconds=base, jitter=jitter)
    assert following >= now
    assert following > now or base * 2**count >= MAX_BACKOFF_SECONDS


def test_the_delay_starts_at_the_base_and_is_spread_if_no_jitter_is_given():
    assert [backoff_seconds(count, base_seconds=60, jitter=0) for count in range(5)] == [60, 120, 240, 480, 600]
    drawn = {backoff_seconds(2, base_seconds=60) for _ in range(50)}
    assert len(drawn) > 1
    assert all(192 <= delay <= 240 for delay in drawn)


@pytest.mark.parametrize("count", [0, 3])
def test_no_base_means_no_delay(count: int):
    assert backoff_seconds(count, base_seconds=0) == 0
