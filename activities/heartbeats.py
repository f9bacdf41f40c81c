"""Periodic heartbeats for activities that await a remote system."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from temporalio import activity

_INTERVAL_SECONDS = 2.0


@asynccontextmanager
async def heartbeat_periodically(find_details: Callable[[], object] | None = None) -> AsyncIterator[None]:
    """Sends a heartbeat every 2 s while the block runs, with the current details if there are any."""

    async def beat() -> None:
        while True:
            activity.heartbeat(*([] if find_details is None else [find_details()]))
            await asyncio.sleep(_INTERVAL_SECONDS)

    heartbeats = asyncio.create_task(beat())
    try:
        yield
    finally:
        heartbeats.cancel()
