"""A scripted server on loopback: the agents' server and the receiver of webhooks."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

# What is sent, piece by piece, with the pause before each.
Script = Sequence[tuple[float, bytes]]

_CASE = re.compile(rb"agents-\d+")
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_TAKEN: Script = ((0.0, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),)
# Deliveries are answered in turn: most are accepted, some get something odd.
_RECEIVER: tuple[Script, ...] = (
    _TAKEN,
    _TAKEN,
    _TAKEN,
    (
        (
            0.0,
            b"HTTP/1.1 500 \xff\r\nContent-Type: \xff\r\nContent-Length: 3\r\nConnection: close\r\n\r\n\xff\xfe\x00",
        ),
    ),
    ((0.0, b"HTTP/1.1 301 Moved\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),),
    (
        (
            0.0,
            b"HTTP/1.1 503 \r\nRetry-After: " + b"9" * 5_000 + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ),
    ),
    ((0.0, b"SSH-2.0-x\r\n"),),
    ((0.0, b""),),
)


@asynccontextmanager
async def scripted_server(scripts: Mapping[str, Script]) -> AsyncIterator[int]:
    """Serves until the block ends; gives the port. A request that names a case gets that case's script."""
    deliveries = 0
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal deliveries
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            deliveries += 1
            named = _CASE.search(body)
            script = scripts.get(named[0].decode()) if named else None
            for pause, piece in script if script is not None else _RECEIVER[deliveries % len(_RECEIVER)]:
                await asyncio.sleep(pause)
                writer.write(piece)
                await writer.drain()
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in handlers:
            task.cancel()


def agents_config(port: int) -> str:
    """The sections of `sevenfold.toml` for the scripted agents: what one case is answered must close no circuit."""
    common = "circuit = {enabled = false}\nidle_timeout_seconds = 2\n"
    return (
        f'[agents.scripted-http]\nkind = "http"\nurl = "http://127.0.0.1:{port}/agent"\n{common}'
        f'[agents.scripted-openai]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\nmodel = "m"\n{common}'
        f'[agents.scripted-json]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\nmodel = "m"\n'
        f'json_schema = {{type = "object"}}\n{common}'
    )
