"""A proxy before a server on this machine. Requests pass; from a mark in one of them on, answers do not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class StallingProxy:
    """Once the mark has passed, what clients asked for is done, and they never learn of it."""

    def __init__(self, upstream: str, mark: bytes) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._mark = mark
        self._passing: set[asyncio.Task[None]] = set()
        self.stalled = asyncio.Event()
        self.address = ""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        for work in (self._requests(reader, upstream_writer), self._answers(upstream_reader, writer)):
            task = asyncio.create_task(work)
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tail = b""
        async with closing(writer):
            while data := await reader.read(65_536):
                if self._mark in tail + data:
                    self.stalled.set()
                tail = data[-len(self._mark) :]
                writer.write(data)
                await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with closing(writer):
            while data := await reader.read(65_536):
                if not self.stalled.is_set():
                    writer.write(data)
                    await writer.drain()

    async def close(self) -> None:
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)


@asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            yield
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def stalling_proxy(upstream: str, mark: bytes) -> AsyncIterator[StallingProxy]:
    proxy = StallingProxy(upstream, mark)
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
