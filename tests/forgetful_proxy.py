"""A proxy before a Temporal server that keeps one answer to itself, as the server does now and then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.stalling_proxy import closing

_PREFACE = 24  # bytes with which HTTP/2 begins
_FRAME_HEADER = 9
_DATA, _HEADERS = 0, 1


class ForgetfulProxy:
    """Withholds the answer to the first request whose body has the mark, and has not what `without` says."""

    def __init__(self, upstream_port: int, mark: bytes, without: bytes) -> None:
        self._upstream_port = upstream_port
        self._mark, self._without = mark, without
        self._passing: set[asyncio.Task[None]] = set()
        self._asked = False
        self.forgotten = 0  # frames of the answer
        self.port = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        withheld: set[int] = set()  # streams of this connection
        works = self._requests(reader, upstream_writer, withheld), self._answers(upstream_reader, writer, withheld)
        for task in map(asyncio.create_task, works):
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, withheld: set[int]) -> None:
        async with closing(writer):
            writer.write(await reader.readexactly(_PREFACE))
            while True:
                frame, kind, stream = await _frame(reader)
                if not self._asked and kind == _DATA and self._mark in frame and self._without not in frame:
                    self._asked = True
                    withheld.add(stream)
                writer.write(frame)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, withheld: set[int]) -> None:
        """Headers are compressed by what went before: those of an answer must not be the connection's first."""
        async with closing(writer):
            while True:
                frame, kind, stream = await _frame(reader)
                if stream in withheld and kind in (_DATA, _HEADERS):
                    self.forgotten += 1
                else:
                    writer.write(frame)

    async def close(self) -> None:
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)


async def _frame(reader: asyncio.StreamReader) -> tuple[bytes, int, int]:
    """A frame with its kind and the number of its stream."""
    header = await reader.readexactly(_FRAME_HEADER)
    payload = await reader.readexactly(int.from_bytes(header[:3]))
    return header + payload, header[3], int.from_bytes(header[5:]) & 0x7FFF_FFFF


@asynccontextmanager
async def forgetful_proxy(upstream_port: int, mark: bytes, *, without: bytes) -> AsyncIterator[ForgetfulProxy]:
    proxy = ForgetfulProxy(upstream_port, mark, without)
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
