"""Heartbeats of activities that wait for somebody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

_INTERVAL_SECONDS = 2.0


@asynccontextmanager
async def heartbeat_periodically() -> AsyncIterator[None]:
    """Tells Temporal every 2 s that this worker lives, while the block runs."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(_INTERVAL_SECONDS)

    heartbeats = asyncio.create_task(beat())
    try:
        yield
    finally:
        heartbeats.cancel()
