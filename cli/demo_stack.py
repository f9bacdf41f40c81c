"""Starts a temporary gateway for the demo, and a receiver for its webhook, both on this machine."""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

_READY_SECONDS = 40

_DOCUMENT = """<!doctype html><title>Quarterly report</title><h1>Quarterly report</h1>
<p>Revenue grew by twelve percent. Customers praise the new dashboard; two complained about slow exports.</p>
<p>The team is confident, and will hire four engineers before summer.</p>"""


class DemoError(Exception):
    """A step of the demo that did not behave as expected."""


@asynccontextmanager
async def fresh_gateway() -> AsyncIterator[tuple[str, str]]:
    """Runs `sevenfold dev` with an empty data directory. Yields its URL, and the Temporal UI's."""
    port, temporal, ui = _free_ports(3)
    with tempfile.TemporaryDirectory(prefix="sevenfold-demo-") as directory:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SEVENFOLD_", "TEMPORAL_"))},
            "SEVENFOLD_PORT": str(port),
            "SEVENFOLD_TEMPORAL_PORT": str(temporal),
            "SEVENFOLD_TEMPORAL_UI_PORT": str(ui),
            "SEVENFOLD_DATA_DIR": f"{directory}/data",
            "SEVENFOLD_ALLOW_LOOPBACK_URLS": "true",
            "SEVENFOLD_LOG_LEVEL": "error",
        }
        log = Path(directory, "log")
        with log.open("wb") as output:  # noqa: ASYNC230  (once)
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("sevenfold")),
                "dev",
                env=environment,
                cwd=directory,
                stdout=output,
                stderr=output,
            )
        try:
            await _wait_until_ready(port, process, log)
            yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ui}"
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _wait_until_ready(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(_READY_SECONDS), httpx.AsyncClient(trust_env=False) as http:
        while True:
            if process.returncode is not None:
                output = log.read_text(errors="replace")  # noqa: ASYNC240  (once)
                raise DemoError(f"The gateway did not start:\n{output}")
            with suppress(httpx.TransportError):
                if (await http.get(f"http://127.0.0.1:{port}/health/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Receiver:
    """A client's system: serves a document and receives webhooks."""

    port: int = 0
    posts: "asyncio.Queue[tuple[dict[str, str], bytes]]" = field(default_factory=asyncio.Queue)

    @property
    def document(self) -> str:
        return f"http://127.0.0.1:{self.port}/report.html"

    @property
    def webhook(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhooks/ai-results"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request and closes the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if request.startswith("POST"):
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.posts.put_nowait((headers, body))
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        else:
            page = _DOCUMENT.encode()
            kind = f"Content-Type: text/html\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\n" + kind.encode() + page)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    """Runs a receiver while the block runs."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()
