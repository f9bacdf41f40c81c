"""A network between processes and the Temporal server that can be made slow, deaf or broken."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

# Closing with these discards what is unsent and sends a reset.
_RESET = struct.pack("ii", 1, 0)


class FlakyProxy:
    """Forwards bytes, unless a fault is switched on."""

    def __init__(self, upstream: str) -> None:
        """Before a server at `upstream`, HOST:PORT."""
        self._host, _, self._port = upstream.rpartition(":")
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay = 0.0
        self._refuses = False
        self._open: set[asyncio.StreamWriter] = set()
        self.address = ""

    def calm(self) -> None:
        """Pass everything on at once."""
        self._delay, self._refuses = 0.0, False
        self._flows.set()

    def slow(self, seconds: float) -> None:
        """Hold each piece for up to so many seconds."""
        self._delay = seconds

    def stall(self) -> None:
        """Keep the connections, and let nothing pass until it is calm again."""
        self._flows.clear()

    def refuse(self) -> None:
        """Reset new connections."""
        self._refuses = True

    def reset(self) -> None:
        """Break all connections by a reset."""
        for writer in list(self._open):
            _reset(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection."""
        if self._refuses:
            _reset(writer)
            return
        try:
            to_reader, to_writer = await asyncio.open_connection(self._host, int(self._port))
        except OSError:
            _reset(writer)
            return
        self._open |= {writer, to_writer}
        try:
            await asyncio.gather(self._pass(reader, to_writer), self._pass(to_reader, writer))
        finally:
            self._open -= {writer, to_writer}
            for one in (writer, to_writer):
                one.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if self._delay:
                    await asyncio.sleep(random.uniform(0, self._delay))
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def flaky_proxy(upstream: str, port: int) -> AsyncIterator[FlakyProxy]:
    """A calm proxy at a port of the loopback."""
    proxy = FlakyProxy(upstream)
    serving: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    proxy.address = f"127.0.0.1:{port}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.reset()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
