"""The agents that the benchmark gives to Sevenfold: they take no time or a known one, so the gateway is measured."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from contracts.agent import AgentEvent, Progress, Reply

TICKS = 10


async def instant(request: Any) -> str:
    """Answer any request at once."""
    return "ok"


async def twenty(request: Any) -> str:
    """Answer after 20 ms."""
    await asyncio.sleep(0.02)
    return "ok"


async def fifty(request: Any) -> str:
    """Answer after 50 ms."""
    await asyncio.sleep(0.05)
    return "ok"


async def ticking(request: Any) -> AsyncIterator[AgentEvent]:
    """Make progress every second; the note is the moment it was made, so that whoever sees it knows how late."""
    for tick in range(1, TICKS + 1):
        await asyncio.sleep(1)
        yield Progress(percent=100 * tick / TICKS, note=repr(time.time()))
    yield Reply(response="ok")
