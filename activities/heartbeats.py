"""Periodic heartbeats for activities that await a remote system."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

_INTERVAL_SECONDS = 2.0


@asynccontextmanager
async def heartbeat_periodically() -> AsyncIterator[None]:
    """Sends a heartbeat every 2 s while the block runs."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(_INTERVAL_SECONDS)

    heartbeats = asyncio.create_task(beat())
    try:
        yield
    finally:
        heartbeats.cancel()
