"""A proxy before a server on this machine. Requests pass; from a mark in one of them on, answers do not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.proxies import proxied


class StallingProxy:
    """Once the mark has passed, what clients asked for is done, and they never learn of it."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self.stalled = asyncio.Event()
        self.address = ""

    async def requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tail = b""
        while data := await reader.read(65_536):
            if self._mark in tail + data:
                self.stalled.set()
            tail = data[-len(self._mark) :]
            writer.write(data)
            await writer.drain()

    async def answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if not self.stalled.is_set():
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def stalling_proxy(upstream: str, mark: bytes) -> AsyncIterator[StallingProxy]:
    proxy = StallingProxy(mark)
    async with proxied(upstream, lambda: (proxy.requests, proxy.answers)) as proxy.address:
        yield proxy
