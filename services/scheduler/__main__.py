"""The scheduler service."""

import asyncio
from collections.abc import Callable

from codefleet.queueing.broker import GrantBroker
from codefleet.service import announce_ready, open_stores, run_service
from codefleet.settings import Settings
from codefleet.storage.leadership import LeadershipRepository
from services.scheduler.leader import Leader
from services.scheduler.loop import SchedulerLoop


async def main(settings: Settings, stop: asyncio.Event) -> None:
    async with open_stores(settings) as stores:
        leaderships = LeadershipRepository(stores.mongo, "scheduler")
        leader = Leader(leaderships, lease_seconds=settings.leader_lease_seconds)
        broker = GrantBroker(settings.redis_url, settings.redis_prefix)
        try:
            async with asyncio.TaskGroup() as duties:
                keeping = duties.create_task(leader.keep())
                leading = duties.create_task(
                    _lead_for_ever(leader, lambda: SchedulerLoop(stores, settings, leader, broker)),
                )
                announce_ready()
                await stop.wait()
                leading.cancel()
                keeping.cancel()
        finally:
            await leader.resign()
            broker.close()


async def _lead_for_ever(leader: Leader, new_loop: Callable[[], SchedulerLoop]) -> None:
    while True:
        await leader.elected()
        await new_loop().lead()


if __name__ == "__main__":
    run_service("scheduler", main)
