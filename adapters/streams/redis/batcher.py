"""Writes of many streams in one pipeline."""

import asyncio
import time
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from sevenfold.adapters.streams.redis.client import propagate_cancel

# Pipelines start at least this far apart. It does not delay a single stream; with 100 streams of 20 chunks a second a
# pipeline has 12 writes, and costs little more than one of a single write.
_INTERVAL_SECONDS = 0.006


class StreamWrite(NamedTuple):
    """One entry for a Redis Stream; `renews` sets the key's time to live again."""

    key: str
    identity: str
    value: bytes
    renews: bool


class RedisBatcher:
    """Sends writes for as long as `run` runs. Writes that come while a pipeline is under way form the next one.

    `name` is the entries' only field; `lifetime` is in seconds, from a stream's last renewal.
    """

    def __init__(self, redis: "Redis", name: bytes, lifetime: int) -> None:
        self._redis = redis
        self._name = name
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
        started_at = 0.0
        while True:
            await self._has_pending.wait()
            if (pause := started_at + _INTERVAL_SECONDS - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            started_at = time.monotonic()
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
            pipeline.execute_command("XADD", write.key, write.identity, self._name, write.value)
        for key in {write.key for write in writes if write.renews}:
            pipeline.expire(key, self._lifetime)
        answers = await propagate_cancel(pipeline.execute(raise_on_error=False))
        return list(answers[: len(writes)])
