"""Hosts of strangers, on real sockets: they answer well or badly, and count who connects and what they sent."""

import asyncio
import gzip
import os
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sevenfold.adapters.outbound.connections import Addresses

Write = Callable[[bytes], Awaitable[None]]
Behaviour = Callable[[Write, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """One listening socket and what happened there."""

    port: int = 0
    connections: int = 0
    sent: int = 0
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Resolver:
    """Sends its scripted answers in turn, the last one for ever, and counts."""

    answers: list[list[str]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Addresses:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [ip_address(address) for address in answer]


@asynccontextmanager
async def peer(
    behaviour: Behaviour, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """A host that behaves so at every request."""
    state = Peer()
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()
            state.sent += len(data)

        state.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                state.heads.append(head)
                await behaviour(write, writer)
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)
        task.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, host, port, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await server.wait_closed()


def answers(body: bytes = b"hello", *headers: str, status: int = 200) -> Behaviour:
    """An ordinary answer; the connection stays open."""

    async def behave(write: Write, _: asyncio.StreamWriter) -> None:
        await write(_head(status, f"Content-Length: {len(body)}", *headers) + body)

    return behave


def redirects(to: bytes, status: int = 302) -> Behaviour:
    """An answer that leads elsewhere."""

    async def behave(write: Write, _: asyncio.StreamWriter) -> None:
        await write(_head(status, "Content-Length: 0")[:-2] + b"Location: " + to + b"\r\n\r\n")

    return behave


def drips(*, head: bool = False) -> Behaviour:
    """A byte now and then, for ever: of the body, or of the answer's head."""

    async def behave(write: Write, _: asyncio.StreamWriter) -> None:
        await write(b"HTTP/1.1 200 OK\r\nX-Slow: " if head else _head(200, "Content-Length: 1000000"))
        while True:
            await write(b".")
            await asyncio.sleep(0.02)

    return behave


def resets(*, after: bytes = b"") -> Behaviour:
    """Cuts the connection with a RST."""

    async def behave(write: Write, writer: asyncio.StreamWriter) -> None:
        await write(after)
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return behave


def pours(
    total: int, *headers: str, announced: bool = False, piece: bytes = bytes(65536), once: bytes = b""
) -> Behaviour:
    """A huge body of one repeated piece, with or without a Content-Length."""

    async def behave(write: Write, writer: asyncio.StreamWriter) -> None:
        await write(_head(200, f"Content-Length: {total}" if announced else "Connection: close", *headers) + once)
        for _ in range(total // len(piece)):
            await write(piece)
        writer.close()

    return behave


def bombs(layers: int = 1) -> Behaviour:
    """64 MB of zeroes, packed; in more layers what is packed is packed again."""
    body = bytes(64 * 1024 * 1024)
    for _ in range(layers):
        body = gzip.compress(body, 6)
    return answers(body, "Content-Encoding: " + ", ".join(["gzip"] * layers))


def _head(status: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Status", *headers, "", ""]).encode()


async def falls_out_of_tls(_: Write, writer: asyncio.StreamWriter) -> None:
    """Answers in the clear, although TLS was agreed on."""
    os.write(writer.get_extra_info("socket").fileno(), _head(400, "Content-Length: 0"))


@dataclass(frozen=True)
class Tls:
    """A host with a certificate of its own, and clients that trust that one only. `names`: what was asked for."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    names: list[str | None]


def tls_for(name: str, directory: Path) -> Tls:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's own")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = directory / "chain.pem"
    chain.write_bytes(certificate + private)
    names: list[str | None] = []
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain)
    server.sni_callback = lambda _, asked, __: names.append(asked)
    client = ssl.create_default_context(cadata=certificate.decode())
    return Tls(server, client, names)
