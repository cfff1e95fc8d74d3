import threading
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from codefleet import clock
from codefleet.clock import first_id_at, in_seconds, new_task_id, utc_now

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
milliseconds = st.integers(1_500_000_000_000, 4_000_000_000_000)


def at(milliseconds_since_1970: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds_since_1970)


def test_now_is_aware_and_survives_being_stored_in_whole_milliseconds():
    now = utc_now()
    assert now.tzinfo is UTC
    assert now.microsecond % 1000 == 0
    assert timedelta(seconds=59) < in_seconds(60) - now <= timedelta(seconds=61)


def test_an_id_is_a_version_7_uuid_of_its_moment():
    before = utc_now()
    id_ = UUID(new_task_id())
    after = utc_now()
    assert id_.version == 7
    assert id_.variant == RFC_4122
    assert before <= at(id_.int >> 80) <= after


def test_ids_made_one_after_the_other_sort_in_that_order():
    ids = [new_task_id() for _ in range(20_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_ids_made_by_many_threads_are_unique_and_sorted_within_each():
    made: list[list[str]] = []

    def make() -> None:
        made.append([new_task_id() for _ in range(2_000)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == sorted(ids) for ids in made)
    assert len({id_ for ids in made for id_ in ids}) == 16_000


def test_ids_go_on_rising_while_the_clock_stands_still_or_goes_back(monkeypatch):
    present = clock.time.time_ns()
    shown = iter([present, present, present - 3600 * 10**9, present + 5])
    monkeypatch.setattr(clock.time, "time_ns", lambda: next(shown))
    ids = [new_task_id() for _ in range(4)]
    assert ids == sorted(set(ids))


@given(milliseconds)
def test_a_bound_parts_ids_of_the_millisecond_before_from_those_after(moment: int):
    last_before = str(UUID(int=(moment - 1) << 80 | 0x7FFF << 64 | 0xBFFF << 48))
    first_after = str(UUID(int=moment << 80 | 0x7000 << 64 | 0x8000 << 48))
    assert last_before < first_id_at(at(moment)) < first_after


@given(milliseconds, milliseconds)
def test_bounds_sort_like_their_moments(one: int, other: int):
    assert (first_id_at(at(one)) < first_id_at(at(other))) == (one < other)
