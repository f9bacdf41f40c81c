"""Sevenfold in several processes over one Temporal server."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

import httpx

from sevenfold.runtime.temporal.embedded import EmbeddedTemporal
from tests.support.stack import Sevenfold


class EmbeddedTemporalOnly:
    """A Temporal server for processes that get its address as TEMPORAL_ADDRESS."""

    def __init__(self, settings: Any) -> None:
        settings.data_dir.mkdir(mode=0o700, exist_ok=True)
        self._server = EmbeddedTemporal(settings)

    async def __aenter__(self) -> str:
        await self._server.__aenter__()
        return self._server.address

    async def __aexit__(self, *error: Any) -> None:
        await self._server.__aexit__(*error)


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    """Waits until the condition holds; it may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while not (await found if isawaitable(found := condition()) else found):
            await asyncio.sleep(0.05)


async def is_live(http: httpx.AsyncClient, api: Sevenfold) -> bool:
    """Whether the API answers; fails with its output if the process has ended."""
    assert api.process.poll() is None, api.output()
    try:
        return (await http.get("/health/live")).status_code == 200
    except httpx.TransportError:
        return False


async def has_status(http: httpx.AsyncClient, run_id: str, status: str) -> bool:
    """Whether a run has this status now."""
    return bool((await http.get(f"/api/agent/runs/{run_id}")).json()["status"] == status)
