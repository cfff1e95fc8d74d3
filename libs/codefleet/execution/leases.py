"""Leases of a worker: renewed together, and lost in time.

A run may go on only while its lease is in force. If renewing fails, every run is told so before MongoDB would let
another worker have its task.
"""

import asyncio
import time
from typing import Protocol

import structlog

from codefleet.domain.states import State
from codefleet.errors import UnavailableError
from codefleet.storage.tasks import TaskRepository
from codefleet.storage.workers import WorkerRepository

MARGIN_SECONDS = 1.0
"""A run ends this long before its lease does, so that its processes are dead when the task is granted anew."""

log = structlog.get_logger(__name__)


class Leaseholder(Protocol):
    """A run that holds a lease."""

    epoch: int

    def renewed(self, seconds: float) -> None:
        """It may go on for `seconds` from now."""
        ...

    def cancel(self) -> None:
        """Somebody asked for its end."""
        ...

    def lose(self) -> None:
        """Its lease is over: it must stop at once and write nothing."""
        ...


class Leases:
    """The leases a worker holds, by task."""

    def __init__(
        self,
        worker_id: str,
        tasks: TaskRepository,
        workers: WorkerRepository,
        *,
        lease_seconds: float,
        heartbeat_seconds: float,
    ) -> None:
        self._worker_id = worker_id
        self._tasks = tasks
        self._workers = workers
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._held: dict[str, Leaseholder] = {}
        self._renewed_at: dict[str, float] = {}

    @property
    def usable_seconds(self) -> float:
        """How long a run may go on after the moment at which its lease was asked for."""
        return self._lease_seconds - MARGIN_SECONDS

    def hold(self, task_id: str, holder: Leaseholder, *, asked_at: float) -> None:
        """Begins to renew a lease that was asked for at `asked_at` (monotonic seconds).

        Whoever held the task under an earlier epoch has lost it.
        """
        if (earlier := self._held.get(task_id)) is not None and earlier is not holder:
            earlier.lose()
        self._held[task_id] = holder
        self._renewed_at[task_id] = asked_at

    def drop(self, task_id: str, holder: Leaseholder) -> None:
        """Ends renewing; harmless if `holder` does not hold it any more."""
        if self._held.get(task_id) is holder:
            del self._held[task_id], self._renewed_at[task_id]

    def holder(self, task_id: str) -> Leaseholder | None:
        return self._held.get(task_id)

    async def keep(self) -> None:
        """Renews for ever, together with the worker's own heartbeat."""
        while True:
            started = time.monotonic()
            try:
                async with asyncio.timeout(self._heartbeat_seconds):
                    await self._renew(started)
            except (UnavailableError, TimeoutError):
                log.warning("leases not renewed", held=len(self._held))
            except Exception:
                # Whatever it is, runs whose leases are not renewed must still be told in time.
                log.exception("leases not renewed", held=len(self._held))
            self._lose_overdue()
            await asyncio.sleep(max(0.0, started + self._heartbeat_seconds - time.monotonic()))

    async def _renew(self, asked_at: float) -> None:
        holders = dict(self._held)
        states = await self._tasks.renew(self._worker_id, {task: holder.epoch for task, holder in holders.items()})
        for task_id, holder in holders.items():
            if self._held.get(task_id) is holder:
                self._learn(task_id, holder, states.get(task_id), asked_at)
        await self._workers.heartbeat(self._worker_id)

    def _learn(self, task_id: str, holder: Leaseholder, state: State | None, asked_at: float) -> None:
        if state is None:
            log.warning("lease lost", task_id=task_id, epoch=holder.epoch)
            holder.lose()
            return
        self._renewed_at[task_id] = asked_at
        holder.renewed(self.usable_seconds - (time.monotonic() - asked_at))
        if state is State.CANCELLING:
            holder.cancel()

    def _lose_overdue(self) -> None:
        now = time.monotonic()
        for task_id, holder in list(self._held.items()):
            # The next look is a heartbeat away, so what will be overdue by then is lost now.
            if now - self._renewed_at[task_id] > self.usable_seconds - self._heartbeat_seconds:
                log.warning("lease could not be renewed in time", task_id=task_id, epoch=holder.epoch)
                holder.lose()
