"""What the leader knows of workers and their slots: read from MongoDB now and then, kept up to date by hints."""

from collections import defaultdict

from codefleet.domain.placement import Load
from codefleet.domain.queues import Queue
from codefleet.domain.workers import Worker, WorkerState
from codefleet.storage.tasks import TaskRepository
from codefleet.storage.workers import WorkerRepository


class Occupancy:
    def __init__(self, tasks: TaskRepository, workers: WorkerRepository) -> None:
        self._tasks = tasks
        self._workers = workers
        self._present: list[Worker] = []
        self._held: dict[str, dict[str, int]] = defaultdict(dict)
        self._freed_meanwhile: set[tuple[str, str, int]] = set()

    async def refresh(self) -> None:
        """Reads the truth. Hints that come while it is read may be newer, so they are heard once more."""
        self._freed_meanwhile.clear()
        self._present = await self._workers.present()
        held: dict[str, dict[str, int]] = defaultdict(dict)
        for lease in await self._tasks.leases():
            held[lease.worker_id][lease.task_id] = lease.epoch
        self._held = held
        for freed in self._freed_meanwhile.copy():
            self.free(*freed)

    def occupy(self, worker_id: str, task_id: str, epoch: int) -> None:
        self._held[worker_id][task_id] = epoch

    def free(self, worker_id: str, task_id: str, epoch: int) -> None:
        """Late news of an earlier epoch frees nothing."""
        self._freed_meanwhile.add((worker_id, task_id, epoch))
        if self._held[worker_id].get(task_id) == epoch:
            del self._held[worker_id][task_id]

    def groups(self) -> dict[tuple[Queue, ...], dict[str, Load]]:
        """The workers that take tasks, by the queues that they serve."""
        groups: dict[tuple[Queue, ...], dict[str, Load]] = defaultdict(dict)
        for worker in self._present:
            if worker.state is WorkerState.ONLINE:
                queues = tuple(Queue(queue) for queue in worker.queues)
                groups[queues][worker.worker_id] = Load(slots=worker.slots, running=len(self._held[worker.worker_id]))
        return groups
