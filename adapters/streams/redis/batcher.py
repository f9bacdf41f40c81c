"""Writes of many streams, sent together: what comes while a batch is under way is the next batch."""

import asyncio
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from sevenfold.adapters.streams.redis.client import propagate_cancel


@dataclass(frozen=True, slots=True)
class StreamWrite:
    """One entry for a Redis Stream."""

    key: str
    identity: str
    fields: dict[Any, Any]


class RedisBatcher:
    """Writes as long as `run` runs; `lifetime` is in seconds, from a stream's last entry on."""

    def __init__(self, redis: "Redis", lifetime: int) -> None:
        self._redis = redis
        self._lifetime = lifetime
        self._pending: list[tuple[StreamWrite, asyncio.Future[None]]] = []
        self._has_pending = asyncio.Event()

    async def write(self, entry: StreamWrite) -> None:
        """Returns when Redis has it. Raises RedisError."""
        future = asyncio.get_running_loop().create_future()
        self._pending.append((entry, future))
        self._has_pending.set()
        await future

    async def run(self) -> None:
        """Sends what waits until it is cancelled."""
        while True:
            await self._has_pending.wait()
            self._has_pending.clear()
            batch, self._pending = self._pending, []
            outcomes: list[Any]
            try:
                outcomes = await self._send([write for write, _ in batch])
            except RedisError as error:
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(None)

    async def _send(self, writes: list[StreamWrite]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for write in writes:
            pipeline.xadd(write.key, write.fields, id=write.identity)
        for key in {write.key for write in writes}:
            pipeline.expire(key, self._lifetime)
        answers = await propagate_cancel(pipeline.execute(raise_on_error=False))
        return list(answers[: len(writes)])
