"""Runs the Temporal workers of a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from temporalio.worker import Worker

from sevenfold import __version__

# The SDK's default is a hash of all loaded code, which takes a second of each start.
BUILD_ID = f"sevenfold-{__version__}"


@asynccontextmanager
async def running_workers(*workers: Worker) -> AsyncIterator[None]:
    """The workers poll while the block runs. They shut down together: each may wait for a Temporal that does not
    answer, and one after another they would wait beyond a supervisor's patience.
    """
    async with AsyncExitStack() as stack:
        for one in workers:
            await stack.enter_async_context(one)
        try:
            yield
        finally:
            await asyncio.gather(*(one.shutdown() for one in workers), return_exceptions=True)
