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
        self._held: dict[str, set[str]] = defaultdict(set)

    async def refresh(self) -> None:
        """Reads the truth. What was granted before is in it; a hint that comes later is newer."""
        self._present = await self._workers.present()
        held: dict[str, set[str]] = defaultdict(set)
        for lease in await self._tasks.leases():
            held[lease.worker_id].add(lease.task_id)
        self._held = held

    def occupy(self, worker_id: str, task_id: str) -> None:
        self._held[worker_id].add(task_id)

    def free(self, worker_id: str, task_id: str) -> None:
        self._held[worker_id].discard(task_id)

    def groups(self) -> dict[tuple[Queue, ...], dict[str, Load]]:
        """The workers that take tasks, by the queues that they serve."""
        groups: dict[tuple[Queue, ...], dict[str, Load]] = defaultdict(dict)
        for worker in self._present:
            if worker.state is WorkerState.ONLINE:
                queues = tuple(Queue(queue) for queue in worker.queues)
                groups[queues][worker.worker_id] = Load(slots=worker.slots, running=len(self._held[worker.worker_id]))
        return groups
