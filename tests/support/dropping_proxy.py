"""A proxy before a Temporal server that keeps one answer to itself, as the server does now and then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tests.support.proxies import Way, proxied

_PREFACE = 24  # bytes with which HTTP/2 begins
_FRAME_HEADER = 9
_DATA, _HEADERS = 0, 1


class DroppingProxy:
    """Drops the answer to the first request whose body contains the mark and does not contain `without`."""

    def __init__(self, mark: bytes, without: bytes) -> None:
        self._mark, self._without = mark, without
        self._asked = False
        self.dropped_frames = 0  # frames of the answer
        self.port = 0

    def ways(self) -> tuple[Way, Way]:
        withheld: set[int] = set()  # streams of this connection
        return partial(self._requests, withheld), partial(self._answers, withheld)

    async def _requests(self, withheld: set[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(_PREFACE))
        while True:
            frame, kind, stream = await _frame(reader)
            if not self._asked and kind == _DATA and self._mark in frame and self._without not in frame:
                self._asked = True
                withheld.add(stream)
            writer.write(frame)

    async def _answers(self, withheld: set[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Headers are compressed by what went before: those of an answer must not be the connection's first."""
        while True:
            frame, kind, stream = await _frame(reader)
            if stream in withheld and kind in (_DATA, _HEADERS):
                self.dropped_frames += 1
            else:
                writer.write(frame)


async def _frame(reader: asyncio.StreamReader) -> tuple[bytes, int, int]:
    """A frame with its kind and the number of its stream."""
    header = await reader.readexactly(_FRAME_HEADER)
    payload = await reader.readexactly(int.from_bytes(header[:3]))
    return header + payload, header[3], int.from_bytes(header[5:]) & 0x7FFF_FFFF


@asynccontextmanager
async def dropping_proxy(upstream_port: int, mark: bytes, *, without: bytes) -> AsyncIterator[DroppingProxy]:
    proxy = DroppingProxy(mark, without)
    async with proxied(f"127.0.0.1:{upstream_port}", proxy.ways) as address:
        proxy.port = int(address.rpartition(":")[2])
        yield proxy
