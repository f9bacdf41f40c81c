"""Writes of many streams, sent together: what comes while a batch is under way is the next batch."""

import asyncio
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from adapters.streams.redis_client import asked


@dataclass(frozen=True, slots=True)
class Write:
    """One entry for a Redis Stream."""

    key: str
    identity: str
    fields: dict[Any, Any]


class RedisWrites:
    """Writes as long as `run` runs; `lifetime` is in seconds, from a stream's last entry on."""

    def __init__(self, redis: "Redis", lifetime: int) -> None:
        self._redis = redis
        self._lifetime = lifetime
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._news = asyncio.Event()

    async def done(self, write: Write) -> None:
        """Returns when Redis has it. Raises RedisError."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((write, future))
        self._news.set()
        await future

    async def run(self) -> None:
        """Sends what waits until it is cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            batch, self._waiting = self._waiting, []
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

    async def _send(self, writes: list[Write]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for write in writes:
            pipeline.xadd(write.key, write.fields, id=write.identity)
        for key in {write.key for write in writes}:
            pipeline.expire(key, self._lifetime)
        answers = await asked(pipeline.execute(raise_on_error=False))
        return list(answers[: len(writes)])
