"""The ready index: which tasks could start now, in the order in which they should.

One sorted set for each (queue, project), so that what is blocked for one project is never scanned for another. The
index can be rebuilt from MongoDB at any time; an entry too many is dropped when its grant fails, one too few is added
by reconciliation.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from codefleet.domain.priority import ready_score
from codefleet.domain.queues import Queue
from codefleet.domain.tasks import Task
from codefleet.queueing.redis import translated

# KEYS[1] taken, KEYS[2..] the projects of each queue; ARGV[1] how many, ARGV[2] now (ms), ARGV[3..] for each queue the
# prefix of its sorted sets. Moves the best tasks of all these projects to `taken` and returns their ids; ties go to
# the smaller id.
_TAKE = """
local heads = {}
local function look(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[1] then heads[key] = {first[1], tonumber(first[2])} else heads[key] = nil end
  return first[1]
end
for queue = 2, #KEYS do
  for _, project in ipairs(redis.call('SMEMBERS', KEYS[queue])) do
    if not look(ARGV[queue + 1] .. project) then redis.call('SREM', KEYS[queue], project) end
  end
end
local ids = {}
while #ids < tonumber(ARGV[1]) do
  local best, first
  for key, head in pairs(heads) do
    if not first or head[2] < first[2] or (head[2] == first[2] and head[1] < first[1]) then
      best, first = key, head
    end
  end
  if not best then break end
  ids[#ids + 1] = first[1]
  redis.call('ZREM', best, first[1])
  redis.call('ZADD', KEYS[1], ARGV[2], first[1])
  look(best)
end
return ids
"""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A task's place in the index; the lowest score goes first."""

    task_id: str
    queue: Queue
    project_id: str
    score: float


class Indexable(Protocol):
    """What of a task decides its place: a whole task has it, and so has a projection of one."""

    @property
    def task_id(self) -> str: ...
    @property
    def queue(self) -> Queue: ...
    @property
    def project_id(self) -> str: ...
    @property
    def effective_priority(self) -> int: ...
    @property
    def scheduled_at(self) -> datetime | None: ...
    @property
    def created_at(self) -> datetime: ...


def entry_of(task: Indexable) -> Entry:
    waiting_since = task.scheduled_at or task.created_at
    return Entry(
        task_id=task.task_id,
        queue=task.queue,
        project_id=task.project_id,
        score=ready_score(task.effective_priority, waiting_since),
    )


class ReadyIndex:
    """Every method raises UnavailableError while Redis is away."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:ready"
        self._taken = f"{prefix}:taken"
        self._marker = f"{prefix}:indexed"
        self._rebuilding = f"{prefix}:indexing"
        self._take = redis.register_script(_TAKE)

    async def add(self, entries: Iterable[Entry]) -> None:
        """Adds tasks; one that is there keeps one place, with its latest score."""
        scores: dict[tuple[Queue, str], dict[str, float]] = defaultdict(dict)
        for entry in entries:
            scores[entry.queue, entry.project_id][entry.task_id] = entry.score
        if not scores:
            return
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for (queue, project_id), members in scores.items():
                    pipeline.zadd(self._tasks_key(queue) + project_id, members)
                    pipeline.sadd(self._projects_key(queue), project_id)
                await pipeline.execute()

    async def remove(self, task: Task) -> None:
        with translated():
            await self._redis.zrem(self._tasks_key(task.queue) + task.project_id, task.task_id)

    async def take(self, queues: Sequence[Queue], count: int, *, now_milliseconds: int) -> list[str]:
        """Takes the `count` best tasks of several queues off the index, best first, in one atomic step.

        They stay in `taken` until `forget_taken`, so that a scheduler that dies with them in hand loses nothing.
        """
        with translated():
            taken = await self._take(
                keys=[self._taken, *map(self._projects_key, queues)],
                args=[count, now_milliseconds, *map(self._tasks_key, queues)],
            )
        return [task_id.decode() for task_id in cast("list[bytes]", taken)]

    async def forget_taken(self, task_ids: Iterable[str]) -> None:
        ids = list(task_ids)
        if ids:
            with translated():
                await self._redis.zrem(self._taken, *ids)

    async def taken_before(self, milliseconds: int) -> list[str]:
        """Tasks that were taken before that time and that nobody has accounted for."""
        with translated():
            found = await self._redis.zrangebyscore(self._taken, 0, milliseconds, start=0, num=1000)
        return [task_id.decode() for task_id in cast("list[bytes]", found)]

    async def missing(self, entries: list[Entry]) -> list[Entry]:
        """Those of `entries` that are neither in the index nor taken."""
        if not entries:
            return []
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for entry in entries:
                    pipeline.zscore(self._tasks_key(entry.queue) + entry.project_id, entry.task_id)
                    pipeline.zscore(self._taken, entry.task_id)
                scores = await pipeline.execute()
        return [
            entry
            for entry, indexed, taken in zip(entries, scores[::2], scores[1::2], strict=True)
            if indexed is None and taken is None
        ]

    async def depth(self, queue: Queue) -> int:
        """How many tasks of a queue are in the index."""
        with translated():
            projects = cast("set[bytes]", await self._redis.smembers(self._projects_key(queue)))
            async with self._redis.pipeline(transaction=False) as pipeline:
                for project in projects:
                    pipeline.zcard(self._tasks_key(queue) + project.decode())
                return sum(await pipeline.execute())

    async def is_whole(self) -> bool:
        """False once Redis has lost its data since `end_rebuild`."""
        with translated():
            return bool(await self._redis.exists(self._marker))

    async def begin_rebuild(self) -> None:
        with translated():
            await self._redis.set(self._rebuilding, 1)

    async def end_rebuild(self) -> bool:
        """Makes the index count as whole; False if Redis has lost its data again since `begin_rebuild`."""
        with translated():
            try:
                await self._redis.rename(self._rebuilding, self._marker)
            except ResponseError:  # there is no such key
                return False
        return True

    def _projects_key(self, queue: Queue) -> str:
        return f"{self._prefix}:{queue}"

    def _tasks_key(self, queue: Queue) -> str:
        return f"{self._prefix}:{queue}:"
