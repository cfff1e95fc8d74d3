"""Leadership as a lease in a real MongoDB."""

import asyncio
import time

import pytest

from codefleet.errors import UnavailableError
from codefleet.service import Stores
from codefleet.storage.leadership import LeadershipRepository
from services.scheduler.leader import Leader
from tests.support.waiting import eventually


@pytest.fixture
def leadership(stores: Stores) -> LeadershipRepository:
    return LeadershipRepository(stores.mongo, "scheduler")


async def test_of_20_who_come_first_at_once_one_leads(leadership: LeadershipRepository):
    names = [f"s{number}" for number in range(20)]
    answers = await asyncio.gather(*(leadership.hold(name, lease_seconds=30) for name in names))
    assert [answer for answer in answers if answer is not None] == [1]
    again = await asyncio.gather(*(leadership.hold(name, lease_seconds=30) for name in names))
    assert again == answers


async def test_a_standby_waits_and_the_holder_keeps_its_epoch(leadership: LeadershipRepository):
    assert not await leadership.is_held()
    assert await leadership.hold("a", lease_seconds=30) == 1
    assert await leadership.is_held()
    assert await leadership.hold("b", lease_seconds=30) is None
    assert await leadership.hold("a", lease_seconds=30) == 1


async def test_a_lease_that_ended_is_taken_over_under_a_higher_epoch(leadership: LeadershipRepository):
    assert await leadership.hold("a", lease_seconds=0.2) == 1
    assert await leadership.hold("b", lease_seconds=30) is None

    async def take_over() -> int | None:
        return await leadership.hold("b", lease_seconds=30)

    assert await eventually(take_over, seconds=5) == 2
    assert await leadership.hold("a", lease_seconds=30) is None


async def test_who_releases_lets_the_next_in_at_once(leadership: LeadershipRepository):
    assert await leadership.hold("a", lease_seconds=30) == 1
    await leadership.release("b")  # not its to release
    assert await leadership.hold("b", lease_seconds=30) is None
    await leadership.release("a")
    assert not await leadership.is_held()
    assert await leadership.hold("b", lease_seconds=30) == 2
    await leadership.release("a")  # a second time, late
    assert await leadership.is_held()


async def test_leaderships_of_different_names_are_apart(stores: Stores, leadership: LeadershipRepository):
    assert await leadership.hold("a", lease_seconds=30) == 1
    assert await LeadershipRepository(stores.mongo, "other").hold("b", lease_seconds=30) == 1


async def test_two_never_lead_at_the_same_time(stores: Stores):
    leaders = [Leader(LeadershipRepository(stores.mongo, "scheduler"), lease_seconds=1.0) for _ in range(3)]
    keeping = [asyncio.create_task(leader.keep()) for leader in leaders]
    terms: list[str] = []

    async def come_back(leader: Leader) -> None:
        async def succeeded() -> bool:
            return any(other.leads for other in leaders if other is not leader)

        await eventually(succeeded)
        await leader.keep()

    async def lead_in_turn() -> bool:
        leading = [leader for leader in leaders if leader.leads]
        assert len(leading) <= 1
        if leading and terms[-1:] != [leading[0].name]:
            terms.append(leading[0].name)
            place = leaders.index(leading[0])
            keeping[place].cancel()
            if len(terms) == 2:
                await leading[0].resign()  # the first one just dies
            keeping[place] = asyncio.create_task(come_back(leading[0]))
        return len(terms) >= 3

    await eventually(lead_in_turn, seconds=15)
    for task in keeping:
        task.cancel()
    await asyncio.wait(keeping)


class Away:
    """A leadership whose store stops answering."""

    def __init__(self) -> None:
        self.away = False

    async def hold(self, holder: str, *, lease_seconds: float) -> int | None:  # noqa: ARG002
        if self.away:
            raise UnavailableError("away")
        return 1

    async def release(self, holder: str) -> None:  # noqa: ARG002
        raise UnavailableError("away")


async def test_a_leader_that_cannot_renew_stops_leading_before_its_lease_ends():
    store = Away()
    leader = Leader(store, lease_seconds=1.0)  # type: ignore[arg-type]
    keeping = asyncio.create_task(leader.keep())
    await asyncio.wait_for(leader.elected(), 2)
    store.away = True
    stopped_at = time.monotonic()

    async def leads() -> bool:
        return leader.leads

    await eventually(leads, until=lambda leads: not leads, seconds=3)
    assert time.monotonic() - stopped_at < 1.0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(leader.elected(), 0.1)
    store.away = False
    await asyncio.wait_for(leader.elected(), 2)
    assert leader.leads
    keeping.cancel()
    await asyncio.wait({keeping})
    await leader.resign()
    assert not leader.leads


async def test_a_leader_whose_time_is_up_is_not_elected_although_it_was_before():
    leader = Leader(Away(), lease_seconds=4.0)  # type: ignore[arg-type]
    leader._learn(1, time.monotonic() - 3.6)
    assert not leader.leads
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(leader.elected(), 0.1)
    leader._learn(1, time.monotonic())
    await asyncio.wait_for(leader.elected(), 1)
