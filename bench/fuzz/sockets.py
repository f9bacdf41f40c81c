"""Raw sockets: requests that are hardly HTTP, and clients that stop in the middle."""

import asyncio
import time
from contextlib import suppress
from random import Random

from bench.fuzz.campaign import Case
from bench.fuzz.exchange import Answer, Request

_HOST = b"Host: 127.0.0.1\r\n"
_JSON = b"Content-Type: application/json\r\n"
_CLOSE = b"Connection: close\r\n"
_LIVE = b"GET /health/live HTTP/1.1\r\n" + _HOST
_QUERY = b"POST /api/agent/query HTTP/1.1\r\n" + _HOST + _JSON + _CLOSE
_BODY = b'{"query": "hi"}'

# Half-sent requests that are held at once, and how long each is held.
HANGING = 50
_HANGING_SECONDS = 2.0
_TIMEOUT_SECONDS = 2.0

GET_PATHS = (
    "/", "/docs", "/openapi.json", "/asyncapi.json", "/health/live", "/health/ready", "/api/agent/runs",
    "/api/agent/events", "/api/agent/events/stream", "/api/agent/dead-letters", "/api/agent/subscriptions",
    "/api/agent/stats", "/api/agent/agents", "/api/agent/webhooks/deliveries", "/api/agent/stream/ws",
    "/api/agent/runs/{qry}", "/api/agent/runs/{qry}/stream", "/api/agent/tasks/{task}", "/api/agent/jobs/{job}",
    "/api/agent/jobs/{job}/results", "/api/agent/stream/{str}", "/api/agent/events/{evt}",
    "/api/agent/dead-letters/{rej}", "/api/agent/webhooks/deliveries/{whk}", "/api/agent/subscriptions/none",
)  # fmt: skip

_LINES = (
    b"GET /", b"GET", b"", b"\r\n\r\n", b"GET  / HTTP/1.1", b"get / http/1.1", b"GET / HTTP/9.9",
    b"GET / HTTP/1.1 x", b"GET /\x00 HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET /a b HTTP/1.1", b"G\xc3T / HTTP/1.1",
    b"PRI * HTTP/2.0\r\n\r\nSM", b"CONNECT 127.0.0.1:1 HTTP/1.1", b"TRACE / HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET /" + b"a" * 70_000 + b" HTTP/1.1",
    b"GET /?" + b"a=b&" * 10_000 + b" HTTP/1.1", b"X" * 10_000, b"GET / HTTP/1.0", b"GET http:// HTTP/1.1",
    b"GET //evil.invalid/x HTTP/1.1", b"POST / HTTP/1.1", b"GET ? HTTP/1.1", b"GET # HTTP/1.1",
)  # fmt: skip
_FIELDS = (
    b"NoColon", b": no name", b"A B: c", b"A : b", b"A: b\r\n c", b"A: \x00", b"A:\x0b", b"A\x00: b", b"\xff: \xff",
    b"Content-Length: 1\r\nContent-Length: 2", b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"A: " + b"b" * 100_000, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"Host: a\r\nHost: b",
    b"Upgrade: h2c", b"A:b\nB:c", b"Connection: Upgrade\r\nUpgrade: websocket",
    b"Expect: 100-continue\r\nContent-Length: 10", b"Content-Length: ", b"Content-Length: " + b"0" * 5_000 + b"1",
    b"Content-Length: 99999999999999999999", b"Trailer: A\r\nTE: trailers",
)  # fmt: skip
_CHUNKS = (
    b"zz\r\n\r\n", b"-1\r\n\r\n", b"5\r\n{\"que\r\nzz\r\n", b"ffffffffffffffffff\r\n",
    b"f\r\n{\"query\": \"hi\"}\r\n0\r\n\r\n", b"f;ext=\"a\r\n{\"query\": \"hi\"}\r\n0\r\n\r\n",
    b"f\n{\"query\": \"hi\"}\n0\n\n", b"0\r\nTrailer: x\r\n\r\n", b"\r\n", b"1",
    b"F\r\n{\"query\": \"hi\"}\r\n0\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", b"f\r\n{\"query\": \"hi\"}XX0\r\n\r\n",
    b"1\r\n{\r\n" * 5_000, b"0" * 70_000 + b"f\r\n",
)  # fmt: skip


async def run(case: Case) -> None:
    """One malformed request, one HEAD, or one client that stops in the middle."""
    random = case.random
    roll = random.random()
    if roll < 0.2:
        await case.ask(_head(case), stream_seconds=0.3)
    elif roll < 0.3:
        await _left_in_the_middle(case)
    else:
        make = random.choice((_line, _field, _chunked, _length, _pipelined))
        await case.ask(
            Request("RAW", b"", raw=make(random)),
            timeout_seconds=_TIMEOUT_SECONDS,
            stream_seconds=0.3,
            may_be_cut=True,
        )


def _head(case: Case) -> Request:
    target = case.random.choice(GET_PATHS)
    for kind, identity in case.campaign.known.items():
        target = target.replace(f"{{{kind}}}", identity)
    return Request(case.random.choice(("HEAD", "HEAD", "GET")), target.encode())


def _line(random: Random) -> bytes:
    return random.choice(_LINES) + b"\r\n" + _HOST + _CLOSE + b"\r\n"


def _field(random: Random) -> bytes:
    start = random.choice((_LIVE, _QUERY))
    return start + b"\r\n".join(random.sample(_FIELDS, random.choice((1, 1, 2)))) + b"\r\n\r\n" + _BODY


def _chunked(random: Random) -> bytes:
    return _QUERY + b"Transfer-Encoding: chunked\r\n\r\n" + random.choice(_CHUNKS)


def _length(random: Random) -> bytes:
    length = random.choice((0, 1, len(_BODY) - 1, len(_BODY), len(_BODY) + 1, 10_000_000, 10_000_001))
    return _QUERY + b"Content-Length: %d\r\n\r\n" % length + _BODY


def _pipelined(random: Random) -> bytes:
    """Several requests at once; the client reads the first answer alone."""
    query = b"POST /api/agent/query HTTP/1.1\r\n" + _HOST + _JSON + b"Content-Length: 15\r\n\r\n" + _BODY
    return random.choice((_LIVE + b"\r\n", query)) + random.choice((_LIVE + b"\r\n", b"\x00\xff", b"GET", query))


async def _left_in_the_middle(case: Case) -> None:
    """Sends a part of a head or of a body, waits, and hangs up, in order or by a reset."""
    random = case.random
    whole = _QUERY + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY
    part = whole[: random.randrange(1, len(whole))]
    started_at = time.time()
    answer = Answer()
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", case.campaign.port)
        writer.write(part)
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0, _HANGING_SECONDS)):
                await reader.read(1)
        if random.random() < 0.5:
            writer.transport.abort()
        writer.close()
    answer.failure = "left"
    answer.seconds = time.time() - started_at
    case.note(Request("RAW", b"", raw=part), answer, started_at=started_at, may_be_cut=True)
