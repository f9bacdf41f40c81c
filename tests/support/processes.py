"""Sevenfold in several processes over one Temporal server."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from sevenfold.runtime.embedded import EmbeddedTemporal


class EmbeddedTemporalOnly:
    """A Temporal server for processes that are told its address."""

    def __init__(self, settings: Any) -> None:
        settings.data_dir.mkdir(exist_ok=True)
        self._server = EmbeddedTemporal(settings)

    async def __aenter__(self) -> str:
        await self._server.__aenter__()
        return self._server.address

    async def __aexit__(self, *error: Any) -> None:
        await self._server.__aexit__(*error)


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    """Waits until it holds; it may have to be awaited."""
    async with asyncio.timeout(seconds):
        while not (await found if isawaitable(found := condition()) else found):
            await asyncio.sleep(0.05)
