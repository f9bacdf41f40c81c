"""How the Redis client library handles cancellation."""

import asyncio
import random
from pathlib import Path

from redis.asyncio import Redis

from sevenfold.adapters.streams.redis.client import propagate_cancel
from tests.support.redis_server import redis_server


async def test_cancelled_redis_command_ends_at_any_moment(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        async with Redis.from_url(server.url) as redis:
            await redis.xadd("stream", {"entries": "x" * 1_000})

            async def ask() -> None:
                await propagate_cancel(redis.xrange("stream"))

            ended = cancelled = 0
            for _ in range(100):
                tasks = [asyncio.create_task(ask()) for _ in range(10)]
                await asyncio.sleep(random.random() * 0.01)
                cancelled_tasks = [task for task in tasks if task.cancel()]
                await asyncio.wait(tasks)
                cancelled += sum(task.cancelled() for task in cancelled_tasks)
                ended += len(cancelled_tasks)
            assert cancelled == ended
            assert ended
