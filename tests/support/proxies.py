"""What every proxy before a server on this machine does, whatever it lets pass."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

# Passes on what it reads, until there is no more.
Way = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def proxied(upstream: str, ways: Callable[[], tuple[Way, Way]]) -> AsyncIterator[str]:
    """The proxy's address. `ways` makes those of the requests and of the answers of one connection."""
    host, _, port = upstream.rpartition(":")
    passing: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        requests, answers = ways()
        for work in (_passed(requests, reader, upstream_writer), _passed(answers, upstream_reader, writer)):
            task = asyncio.create_task(work)
            passing.add(task)
            task.add_done_callback(passing.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


async def _passed(way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await way(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
