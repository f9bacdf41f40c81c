"""Messages over the WebSocket of streams."""

import asyncio
import time
from random import Random
from typing import Any

import websockets

from bench.fuzz import hostile
from bench.fuzz.campaign import Case
from bench.fuzz.exchange import HANG_SECONDS, Answer, Request

_TARGET = "/api/agent/stream/ws"
_QUERIES = ("", "", "", "?onDisconnect=cancel", "?onDisconnect=%00", "?onDisconnect=x", "?after=1", "?%ff")
# The end; and messages of a type, an encoding or a size that is not taken (RFC 6455, 7.4.1).
_IN_ORDER = (1000, 1003, 1007, 1009)
# A run of the simulator, to be spoken to while it goes on.
_LONG = '{"query": "hi", "agent": "simulator", "params": {"seconds": 0.5, "steps": 3}}'


async def run(case: Case) -> None:
    """One connection: a first message, then others while the stream goes on, until the server closes."""
    random = case.random
    messages = [_first(case), *(_later(random) for _ in range(random.choice((0, 0, 1, 3))))]
    query = random.choice(_QUERIES)
    started_at = time.time()
    answer = Answer()
    try:
        async with asyncio.timeout(HANG_SECONDS):
            await _converse(case, f"ws://127.0.0.1:{case.campaign.port}{_TARGET}{query}", messages, answer)
    except websockets.InvalidStatus as refused:
        # before the handshake there is no problem+json: the standard's answer is 403
        answer.status, answer.failure = 403, None
        answer.headers = {"content-type": refused.response.headers.get("Content-Type", "")}
    except websockets.ConnectionClosed as closed:
        _judge(closed, answer)
    except (OSError, TimeoutError) as error:
        answer.failure = f"{type(error).__name__}: {error}"
    answer.seconds = time.time() - started_at
    sent = b" | ".join(one if isinstance(one, bytes) else one.encode("utf-8", "replace") for one in messages)
    case.note(Request("WS", f"{_TARGET}{query}".encode(), (), sent), answer, started_at=started_at)


async def _converse(case: Case, url: str, messages: list[str | bytes], answer: Answer) -> None:
    """Sends everything, reads to the end; the close code becomes a status, an `error` line the body."""
    async with websockets.connect(url, max_size=None, open_timeout=HANG_SECONDS, close_timeout=5) as socket:
        for message in messages:
            await socket.send(message)
        leaves = case.random.random() < 0.1
        try:
            while not leaves:
                line = await socket.recv()
                if '"error"' in str(line)[:10]:
                    answer.body = str(line)[9:-1].encode()
                    answer.headers = {"content-type": "application/problem+json"}
        except websockets.ConnectionClosed as closed:
            _judge(closed, answer)
        else:
            answer.status = 200


def _judge(closed: websockets.ConnectionClosed, answer: Answer) -> None:
    """The close code as a status: 4000 and more hold one, and an end in order is a success."""
    code = closed.rcvd.code if closed.rcvd else None
    if code is None:
        answer.failure = "ended without a close frame"
    elif code >= 4400:
        answer.status = code - 4000
    else:
        answer.status, answer.body, answer.headers = 200, b"", {}
        if code not in _IN_ORDER:
            answer.failure = f"closed with {code}"


def _first(case: Case) -> str | bytes:
    random = case.random
    roll = random.random()
    if roll < 0.15:
        return _LONG
    if roll < 0.3:
        return _text(_resumption(case))
    if roll < 0.65:
        body: dict[str, Any] = {"query": "hi", "context": {"a": 1}, "params": {}, "idempotencyKey": case.name}
        name = random.choice((*body, "idempotency_key", "streamId", "stream_id", "after", "cancel", "unknown"))
        body[name] = random.choice((hostile.value(random), hostile.nested_near_limit(random), case.name))
        return _text(body)
    if roll < 0.66:
        return '{"query": "%s"}' % ("x" * random.choice((100_000, 9_000_000, 10_000_001)))
    document = hostile.encoded(random.choice((hostile.value(random), {"query": "hi"}, None)))
    spoilt = hostile.damaged(random, document) if random.random() < 0.5 else document
    return spoilt if random.random() < 0.4 else spoilt.decode("utf-8", "replace")


def _resumption(case: Case) -> dict[str, Any]:
    random = case.random
    return {
        "streamId": random.choice((*case.campaign.known.values(), hostile.value(random))),
        "after": random.choice((0, 1, 10, -1, 2**53, 2**53 + 1, hostile.number(random))),
    }


def _later(random: Random) -> str | bytes:
    odd = hostile.encoded(hostile.value(random))
    known = ('{"cancel": true}', '{"cancel": false}', '{"cancel": "yes"}', "{}", "", b"", b"\xff")
    return random.choice((*known, odd, odd.decode("utf-8", "replace")))


def _text(body: dict[str, Any]) -> str:
    return hostile.encoded(body).decode("utf-8", "replace")
