"""Which worker gets which task. Pure."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How full a worker is."""

    slots: int
    running: int

    @property
    def free(self) -> int:
        return max(0, self.slots - self.running)


def place(task_ids: Sequence[str], loads: Mapping[str, Load]) -> dict[str, str]:
    """The worker of each task, as task → worker, for as many of the first tasks as there are free slots.

    Each task goes to the worker that is then the least loaded relative to its slots; equally loaded ones are taken in
    the order of their ids, so that the same input always gives the same placement.
    """
    running = {worker: load.running for worker, load in loads.items()}
    placed: dict[str, str] = {}
    for task_id in task_ids:
        open_workers = [worker for worker, load in loads.items() if running[worker] < load.slots]
        if not open_workers:
            break
        best = min(open_workers, key=lambda worker: (running[worker] / loads[worker].slots, worker))
        running[best] += 1
        placed[task_id] = best
    return placed


def total_free(loads: Iterable[Load]) -> int:
    return sum(load.free for load in loads)
