from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from codefleet.domain.placement import Load, place, total_free

loads = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.builds(Load, slots=st.integers(1, 8), running=st.integers(0, 12)),
    max_size=6,
)
tasks = st.integers(0, 40).map(lambda count: [f"t{number:02}" for number in range(count)])


@given(tasks, loads)
def test_no_worker_gets_more_than_its_free_slots(task_ids: list[str], workers: dict[str, Load]):
    given_ = Counter(place(task_ids, workers).values())
    assert all(given_[worker] <= load.free for worker, load in workers.items())


@given(tasks, loads)
def test_the_first_tasks_are_placed_until_tasks_or_slots_run_out(task_ids: list[str], workers: dict[str, Load]):
    placed = place(task_ids, workers)
    assert list(placed) == task_ids[: min(len(task_ids), total_free(workers.values()))]


@given(tasks, loads)
def test_each_task_goes_to_the_then_least_loaded_worker(task_ids: list[str], workers: dict[str, Load]):
    running = {worker: load.running for worker, load in workers.items()}
    for worker in place(task_ids, workers).values():
        share = running[worker] / workers[worker].slots
        assert all(
            share <= running[other] / load.slots for other, load in workers.items() if running[other] < load.slots
        )
        running[worker] += 1


@given(tasks, loads, st.randoms())
def test_the_order_in_which_workers_are_listed_does_not_matter(task_ids, workers, random):
    shuffled = list(workers.items())
    random.shuffle(shuffled)
    assert place(task_ids, dict(shuffled)) == place(task_ids, workers)


def test_an_overloaded_worker_does_not_take_free_slots_away_from_others():
    workers = {"full": Load(slots=1, running=5), "free": Load(slots=2, running=0)}
    assert total_free(workers.values()) == 2
    assert place(["a", "b", "c"], workers) == {"a": "free", "b": "free"}
