"""One HTTP exchange over a raw socket: the request goes out byte for byte as it was made, however malformed."""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field

HANG_SECONDS = 30.0
_MAX_HEAD = 1_000_000
_KEPT_BODY = 262_144
_STREAMS = ("text/event-stream", "application/x-ndjson")


@dataclass(frozen=True)
class Request:
    """What is sent. `target` stands in the request line as it is; `raw` replaces the whole request, head and body."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    raw: bytes | None = None

    def encoded(self) -> bytes:
        """The bytes on the wire. Content-Length and Connection are added unless they are given."""
        if self.raw is not None:
            return self.raw
        given = {name.lower() for name, _ in self.headers}
        lines = [b"%s %s HTTP/1.1" % (self.method.encode(), self.target), b"Host: 127.0.0.1"]
        lines += [b"%s: %s" % header for header in self.headers]
        if self.body and not given & {b"content-length", b"transfer-encoding"}:
            lines.append(b"Content-Length: %d" % len(self.body))
        if b"connection" not in given:
            lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


@dataclass
class Answer:
    """What came back. `status` is None when there was no answer; `failure` is the reason."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False
    seconds: float = 0.0
    failure: str | None = None

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def json(self) -> object:
        """The body as JSON, read strictly; None for what is none."""
        try:
            return json.loads(self.body, parse_constant=_refuse_constant)
        except ValueError:
            return None

    @property
    def problem(self) -> str | None:
        """The problem's type without its prefix, or None."""
        problem = self.json if self.media_type == "application/problem+json" else None
        return str(problem.get("type", "")).rpartition(":")[2] if isinstance(problem, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def ask(
    port: int, request: Request, *, timeout_seconds: float = HANG_SECONDS, stream_seconds: float = 1.0
) -> Answer:
    """Sends a request and reads the answer. A streamed answer is left after `stream_seconds`, as by a reader who goes
    away. Nothing is raised: what goes wrong stands in the answer.
    """
    started_at = time.monotonic()
    answer = Answer()
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_MAX_HEAD)
            try:
                # not drained: the server may answer, and close, before it has read all
                writer.write(request.encoded())
                await _read(reader, answer, request.method, stream_seconds)
            finally:
                writer.close()
                with suppress(OSError, TimeoutError):
                    await asyncio.wait_for(writer.wait_closed(), 1)
    except TimeoutError:
        answer.failure = (
            f"no answer within {timeout_seconds:g} s" if answer.status is None else "the answer does not end"
        )
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        answer.failure = f"{type(error).__name__}: {error}"[:120]
    answer.seconds = time.monotonic() - started_at
    return answer


async def _read(reader: asyncio.StreamReader, answer: Answer, method: str, stream_seconds: float) -> None:
    status = 100
    while 100 <= status < 200 and status != 101:
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(status_line.split(" ")[1])
    answer.status = status
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        answer.headers[name.lower()] = value.strip()
    if method == "HEAD" or status in (101, 204, 304):
        return
    if answer.media_type in _STREAMS:
        with suppress(TimeoutError):
            async with asyncio.timeout(stream_seconds):
                await _read_body(reader, answer)
        return
    await _read_body(reader, answer)


async def _read_body(reader: asyncio.StreamReader, answer: Answer) -> None:
    if "chunked" in answer.headers.get("transfer-encoding", ""):
        while size := int(await reader.readuntil(b"\r\n"), 16):
            _keep(answer, (await reader.readexactly(size + 2))[:-2])
        return
    left = int(answer.headers.get("content-length", "0"))
    while left > 0:
        piece = await reader.read(min(left, 65_536))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        _keep(answer, piece)


def _keep(answer: Answer, piece: bytes) -> None:
    answer.cut = answer.cut or len(answer.body) + len(piece) > _KEPT_BODY
    answer.body += piece[: _KEPT_BODY - len(answer.body)]
