"""Grants over Dramatiq and a real Redis, from the scheduler's broker to a worker's inbox."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import dramatiq
import pytest

from codefleet.execution.inbox import Inbox
from codefleet.messages import Grant, Grants
from codefleet.queueing.broker import RUN_ACTOR, GrantBroker, inbox_of
from codefleet.settings import Settings
from tests.support.waiting import eventually

WORKER = "executor-test"


def grants(*task_ids: str) -> Grants:
    return Grants(grants=[Grant(task_id=task_id, epoch=1, attempt=0, type="diagnostic") for task_id in task_ids])


@pytest.fixture
def sender(settings: Settings) -> Iterator[GrantBroker]:
    broker = GrantBroker(settings.redis_url, settings.redis_prefix)
    yield broker
    broker.close()


class Accepted:
    """What arrived, and when."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.at: dict[str, float] = {}
        self.fail_on = ""
        self.held = asyncio.Event()
        self.held.set()

    async def __call__(self, arrived: Grants) -> None:
        for grant in arrived.grants:
            self.at[grant.task_id] = time.monotonic()
            self.ids.append(grant.task_id)
        await self.held.wait()
        if any(grant.task_id == self.fail_on for grant in arrived.grants):
            raise RuntimeError("the worker stumbled")

    async def has(self, *task_ids: str, seconds: float = 8.0) -> None:
        async def read() -> list[str]:
            return self.ids

        await eventually(read, until=lambda ids: set(task_ids) <= set(ids), seconds=seconds)


class Waker(threading.Event):
    """What an idle consumer waits for; tells whether it does."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = False

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_for = True
        try:
            return super().wait(timeout)
        finally:
            self.waited_for = False


@pytest.fixture
async def accepted() -> Accepted:
    return Accepted()


@pytest.fixture
async def receiver(settings: Settings, accepted: Accepted) -> AsyncIterator[GrantBroker]:
    broker = GrantBroker(settings.redis_url, settings.redis_prefix)
    broker._wakers[inbox_of(WORKER)] = Waker()
    inbox = Inbox(broker, WORKER, accepted)
    await asyncio.to_thread(inbox.open)
    yield broker
    accepted.held.set()
    await inbox.close()
    await inbox.close()


async def send(sender: GrantBroker, *task_ids: str) -> None:
    await asyncio.to_thread(sender.send_grants, WORKER, grants(*task_ids))


async def send_raw(sender: GrantBroker, *args: object, actor: str = RUN_ACTOR) -> str:
    message: dramatiq.Message[None] = dramatiq.Message(
        queue_name=inbox_of(WORKER), actor_name=actor, args=args, kwargs={}, options={}
    )
    sent = await asyncio.to_thread(sender.enqueue, message)
    return str(sent.options["redis_message_id"])


async def test_grants_arrive_together(sender: GrantBroker, receiver: GrantBroker, accepted: Accepted):
    await send(sender, "a", "b")
    receiver.wake(WORKER)
    await accepted.has("a", "b")
    assert accepted.ids == ["a", "b"]


async def test_a_woken_inbox_delivers_within_a_tenth_of_a_second(
    sender: GrantBroker, receiver: GrantBroker, accepted: Accepted
):
    await send(sender, "warm up")
    receiver.wake(WORKER)
    await accepted.has("warm up")
    took = []

    async def asleep() -> bool:
        waker = receiver.waker_of(inbox_of(WORKER))
        assert isinstance(waker, Waker)
        return waker.waited_for and not waker.is_set()

    for number in range(10):
        await eventually(asleep)
        await send(sender, f"t{number}")
        woken_at = time.monotonic()
        receiver.wake(WORKER)
        await accepted.has(f"t{number}")
        took.append(accepted.at[f"t{number}"] - woken_at)
    # A busy machine may delay some, polling would delay nearly all.
    assert sorted(took)[5] < 0.1


@pytest.mark.usefixtures("receiver")
async def test_an_inbox_that_nobody_wakes_is_looked_into_all_the_same(sender: GrantBroker, accepted: Accepted):
    await send(sender, "a")
    await accepted.has("a")


async def test_many_messages_arrive_once_each(sender: GrantBroker, receiver: GrantBroker, accepted: Accepted):
    for number in range(60):
        await send(sender, f"t{number}")
    receiver.wake(WORKER)
    await accepted.has(*(f"t{number}" for number in range(60)))
    assert sorted(accepted.ids) == sorted(f"t{number}" for number in range(60))


async def dead_letters(broker: GrantBroker) -> int:
    return int(await asyncio.to_thread(broker.client.zcard, f"{broker.namespace}:{inbox_of(WORKER)}.XQ"))


async def test_messages_that_cannot_be_read_are_put_aside_and_stop_nobody(
    sender: GrantBroker, receiver: GrantBroker, accepted: Accepted
):
    unreadable = [{"grants": [], "version": 99}, {"grants": [{"task_id": "x"}]}, "garbage", None, 7, [[[]]]]
    for argument in unreadable:
        await send_raw(sender, argument)
    await send(sender, "next")
    receiver.wake(WORKER)
    await accepted.has("next")

    async def dead() -> int:
        return await dead_letters(sender)

    assert await eventually(dead, until=lambda count: count >= len(unreadable)) == len(unreadable)
    assert accepted.ids == ["next"]


async def test_an_actor_that_does_not_exist_stops_nobody(
    sender: GrantBroker, receiver: GrantBroker, accepted: Accepted
):
    await send_raw(sender, {"grants": []}, actor="os.system")
    await send_raw(sender, {"grants": []}, "too", "many")
    await send(sender, "next")
    receiver.wake(WORKER)
    await accepted.has("next")


async def test_bytes_that_are_no_message_stop_nobody(sender: GrantBroker, receiver: GrantBroker, accepted: Accepted):
    key = f"{sender.namespace}:{inbox_of(WORKER)}"
    for number, payload in enumerate((b"\xff\xfe", b"{}", b"[1, 2", b'{"queue_name": 1}', b"[]", b"7")):
        await asyncio.to_thread(sender.client.hset, f"{key}.msgs", f"bad{number}", payload)
        await asyncio.to_thread(sender.client.rpush, key, f"bad{number}")
    await send(sender, "next")
    receiver.wake(WORKER)
    await accepted.has("next", seconds=2)


async def test_a_worker_that_stumbles_over_one_message_takes_the_next(
    sender: GrantBroker, receiver: GrantBroker, accepted: Accepted
):
    accepted.fail_on = "a"
    await send(sender, "a")
    await send(sender, "b")
    receiver.wake(WORKER)
    await accepted.has("a", "b")
    assert accepted.ids.count("a") == 1


async def test_a_discarded_inbox_is_empty(sender: GrantBroker, settings: Settings, accepted: Accepted):
    await send(sender, "a")
    await asyncio.to_thread(sender.discard_inbox, WORKER)
    await asyncio.to_thread(sender.discard_inbox, "never seen")
    broker = GrantBroker(settings.redis_url, settings.redis_prefix)
    inbox = Inbox(broker, WORKER, accepted)
    await asyncio.to_thread(inbox.open)
    await send(sender, "b")
    await accepted.has("b")
    assert accepted.ids == ["b"]
    await inbox.close()


async def test_an_inbox_that_was_never_opened_can_be_closed(settings: Settings, accepted: Accepted):
    broker = GrantBroker(settings.redis_url, settings.redis_prefix)
    await Inbox(broker, WORKER, accepted).close()
    broker.close()


async def test_workers_do_not_see_each_others_grants(sender: GrantBroker, receiver: GrantBroker, accepted: Accepted):
    await asyncio.to_thread(sender.send_grants, "another worker", grants("not mine"))
    await send(sender, "mine")
    receiver.wake(WORKER)
    await accepted.has("mine")
    assert accepted.ids == ["mine"]
