"""Leadership of the scheduler: one process acts, the others stand by."""

import asyncio
import time
from uuid import uuid4

import structlog

from codefleet.errors import UnavailableError
from codefleet.storage.leadership import LeadershipRepository

_RENEWALS_PER_LEASE = 4
_MARGIN_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Leader:
    """Holds the leadership whenever nobody else does, for as long as `keep` runs.

    `leads` turns false by this process's own clock before MongoDB would let a standby in.
    """

    def __init__(self, leaderships: LeadershipRepository, *, lease_seconds: float) -> None:
        self.name = uuid4().hex
        self._leaderships = leaderships
        self._lease_seconds = lease_seconds
        self._until = 0.0
        self._epoch: int | None = None
        self._elected = asyncio.Event()

    @property
    def leads(self) -> bool:
        return time.monotonic() < self._until

    async def elected(self) -> None:
        """Returns when this process leads."""
        while not self.leads:
            self._elected.clear()
            await self._elected.wait()

    async def keep(self) -> None:
        """Tries to lead, and to go on leading, for ever."""
        while True:
            asked_at = time.monotonic()
            try:
                async with asyncio.timeout(self._lease_seconds / 2):
                    epoch = await self._leaderships.hold(self.name, lease_seconds=self._lease_seconds)
            except (UnavailableError, TimeoutError):
                log.warning("leadership not renewed")
            else:
                self._learn(epoch, asked_at)
            if not self.leads:
                self._elected.clear()
            await asyncio.sleep(self._lease_seconds / _RENEWALS_PER_LEASE)

    async def resign(self) -> None:
        """Lets a standby take over at once."""
        self._until = 0.0
        try:
            await self._leaderships.release(self.name)
        except UnavailableError:
            log.warning("leadership not released; it ends by itself", seconds=self._lease_seconds)

    def _learn(self, epoch: int | None, asked_at: float) -> None:
        if epoch is None:
            self._until = 0.0
            return
        self._until = asked_at + self._lease_seconds - _MARGIN_SECONDS
        if epoch != self._epoch or not self._elected.is_set():
            log.info("leading", epoch=epoch)
        self._epoch = epoch
        self._elected.set()
