"""What everything that talks to Redis needs beside its client library."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

Answer = TypeVar("Answer")


async def propagate_cancel(command: Awaitable[Answer]) -> Answer:
    """Redis' answer; raises CancelledError where the client library does not.

    redis-py (8.1) swallows a cancellation that comes while it reads an answer, 7 in 100 of those at a random moment:
    the task that was told to end goes on as if nothing had been said, and whoever waits for its end waits for ever.
    """
    try:
        return await command
    finally:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError


@asynccontextmanager
async def run_in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Does the work for as long as the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
