"""`python -m bench.stream_readers PORT …`: readers of streams, in a process of their own.

Each has one connection. Prints one JSON list with an object for every stream: `id`, `sent` (when it was asked for),
`chunks` (a list of `[spoken, seen]`), `status`, and `cancel_sent`. While streams are open, bytes are only put aside
with the moment they came: two thousand chunks a second are read, and what this process does with each of them would
stand in the figure. They are taken apart at the end.
"""

import argparse
import asyncio
import gc
import json
import random
import re
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.http_load import HttpClient

CHUNK = re.compile(rb'data: \{"chunk":"([\d.]+) ","index":\d+\}\r?$')
END = re.compile(rb'data: .*"status":"(\w+)"')

# A stream is cancelled this many seconds after its first chunk.
CANCELLED_AFTER = (0.1, 0.6)


class Reader(asyncio.BufferedProtocol):
    """Sends one request at once. `started` resolves with the first chunk, `ended` when the server has closed."""

    # For all of them, since each empties it before the next one's turn. A plain `Protocol` is given bytes that were
    # cut out of 256 kB, which cost more than all that is done here.
    _buffer = memoryview(bytearray(65_536))

    def __init__(self, message: bytes) -> None:
        """Ask with `message`."""
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.pieces: list[tuple[float, bytes]] = []
        self.sent = 0.0
        self._message = message

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.sent = time.time()
        transport.write(self._message)  # type: ignore[attr-defined]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        """Put them aside."""
        data = bytes(self._buffer[:size])
        self.pieces.append((time.time(), data))
        if not self.started.done() and b'data: {"chunk"' in data:
            self.started.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Whether it was whole shows when it is taken apart."""
        for future in (self.started, self.ended):
            if not future.done():
                future.set_result(None)

    @property
    def stream_id(self) -> str:
        """The id that came with the head; empty from who gives none."""
        head = b"".join(data for _, data in self.pieces[:2]).partition(b"\r\n\r\n")[0]
        found = re.search(rb"(?i)\r\nx-stream-id: (\S+)", head)
        return found[1].decode() if found else ""


@dataclass
class Received:
    """One stream as its reader had it."""

    id: str
    sent: float
    chunks: list[tuple[float, float]] = field(default_factory=list)
    status: str = ""
    cancel_sent: float = 0.0


def to_received(reader: Reader) -> Received:
    """Take apart what the reader put aside; a line counts as seen when its last byte came."""
    stream = Received(reader.stream_id, reader.sent)
    rest = b""
    for seen, data in reader.pieces:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if chunk := CHUNK.match(line):
                stream.chunks.append((float(chunk[1]), seen))
            elif end := END.match(line):
                stream.status = end[1].decode()
    if not stream.chunks or not stream.status:
        raise RuntimeError(f"a stream broke off: {b''.join(data for _, data in reader.pieces)[-500:]!r}")
    return stream


async def one(plan: argparse.Namespace, number: int) -> tuple[Reader, float]:
    """Read one stream to its end; return its reader, and when its cancellation was sent."""
    params: dict[str, Any] = {"chunks": plan.chunks}
    if plan.journal:
        params |= {"journal": plan.journal, "mark": number}
    body = json.dumps({"query": "x", "agent": "speaking", "params": params}).encode()
    head = (
        f"POST /api/agent/stream HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(lambda: Reader(head.encode() + body), "127.0.0.1", plan.port)
    cancel_sent = await _cancelled(plan.port, reader) if plan.journal else 0.0
    await reader.ended
    return reader, cancel_sent


async def _cancelled(port: int, reader: Reader) -> float:
    await reader.started
    await asyncio.sleep(random.uniform(*CANCELLED_AFTER))
    connection = HttpClient(port)
    try:
        sent = time.time()
        await connection.post(f"/api/agent/stream/{reader.stream_id}/cancel", b"")
    finally:
        await connection.close()
    return sent


async def _read(plan: argparse.Namespace) -> list[Received]:
    found: list[tuple[Reader, float]] = []
    async with asyncio.timeout(plan.limit):
        if plan.over is None:
            for number in range(plan.streams):
                found.append(await one(plan, number))
        else:
            found = await asyncio.gather(*(_later(plan, number) for number in range(plan.streams)))
    streams = []
    for reader, cancel_sent in found:
        streams.append(to_received(reader))
        streams[-1].cancel_sent = cancel_sent
    return streams


async def _later(plan: argparse.Namespace, number: int) -> tuple[Reader, float]:
    # At random within its share of the time: at even distances all the agents would speak at the same moments.
    await asyncio.sleep(plan.over * (number + random.random()) / plan.streams)
    return await one(plan, number)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--chunks", type=int, required=True, help="of each stream")
    parser.add_argument("--over", type=float, help="start them over so many seconds (else one after the other)")
    parser.add_argument("--journal", help="cancel each stream; the file in which the agent records the cancellation")
    parser.add_argument("--limit", type=float, required=True, help="seconds after which something hangs")
    gc.disable()
    print(json.dumps([asdict(stream) for stream in asyncio.run(_read(parser.parse_args()))]))
