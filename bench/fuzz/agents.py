"""Answers of agents' servers: JSON, server-sent events and HTTP that are seldom what they should be."""

import gzip
from random import Random
from typing import Any

from bench.fuzz import hostile
from bench.fuzz.campaign import SHORT_WAIT, Case, path, post
from bench.fuzz.upstream import Script

_TYPES = (
    b"application/json", b"text/event-stream", b"application/x-ndjson", b"text/event-stream; charset=\xff",
    b"text/html", b"", b"application/json-seq", b"TEXT/EVENT-STREAM ; x", b"application/octet-stream",
)  # fmt: skip
_STATUS_LINES = (
    b"200 OK", b"201 Created", b"204 No Content", b"206 Partial", b"301 Moved", b"304 Not Modified", b"400 Bad",
    b"401 No", b"404 \xff", b"408 T", b"429 Slow", b"500 E", b"501 N", b"503 U", b"599 X", b"600 X", b"999 X",
    b"099 X", b"2 OK", b"abc", b"",
)  # fmt: skip
_HEADERS = (
    b"Retry-After: -1", b"Retry-After: 1e9", b"Retry-After: " + b"9" * 5_000,
    b"Retry-After: Mon, 01 Jan 9999 00:00:00 -2359", b"Retry-After: Thu, 01 Jan 0001 00:00:00 GMT",
    b"Retry-After: \xff", b"Content-Encoding: gzip", b"Content-Encoding: br", b"Content-Encoding: deflate",
    b"Content-Encoding: x", b"Location: http://10.0.0.1/", b"Location: \xff", b"A: " + b"b" * 50_000, b"A\x00: b",
    b"No colon", b"Transfer-Encoding: chunked", b"Content-Length: 5", b"Content-Length: 99999999",
    b"Set-Cookie: \xff",
)  # fmt: skip
_NO_HTTP = (b"", b"\x00" * 100, b"HTTP/1.1", b"HTTP/9.9 200 OK\r\n\r\n", b"\r\n" * 50, b"x" * 200_000)
# Few bytes each, to be sent very many times.
_SMALL_FRAMES = (b'data: {"text":"a"}\n\n', b'{"percent":1}\n', b"data: x\n", b": x\n", b"\n", b"data:\n\n")
_LAST = (
    b'{"done": true}', b'{"done": 1}', b'{"response": "all"}', b"[DONE]", b'{"response": null}',
    b'{"done": true, "usage": 5}', b'{"choices":[{"delta":{},"finish_reason":"stop"}]}',
    b'{"choices":[{"delta":{},"finish_reason":"length"}]}', b'{"done": true, "confidence": 7}',
    b'{"response": "x", "data": [1], "extra": 1}', b'{"response": "x", "data": "y", "z": 1}',
)  # fmt: skip
_ERRORS = ({"status": 503}, {"status": -1}, {"status": 10**30, "retryAfter": 1e300}, "x", [1])
_FRAME_KEYS = ("text", "chunk", "percent", "note", "response", "done", "error", "confidence", "data", "usage", "x")


async def run(case: Case) -> None:
    """Scripts an answer, requests it through one pattern or another, and discards it."""
    random = case.random
    case.campaign.scripts[case.name] = list(_script(case))
    agent = random.choice(("scripted-http", "scripted-http", "scripted-openai", "scripted-json"))
    body = {"query": case.name, "agent": agent, "timeout": random.choice((0.5, 1, 2))}
    route = random.choice(("query", "query", "stream", "hybrid"))
    try:
        await case.ask(post(path(route), hostile.encoded(body), SHORT_WAIT), stream_seconds=4)
    finally:
        del case.campaign.scripts[case.name]


def _script(case: Case) -> Script:
    """The answer's bytes: a head, and a body whole or in pieces, which may stop in the middle."""
    random = case.random
    if random.random() < 0.04:
        return ((0.0, random.choice(_NO_HTTP)),)
    body = _body(random)
    status = b"200 OK" if random.random() < 0.8 else random.choice(_STATUS_LINES)
    media_type = random.choice(_TYPES[:3]) if random.random() < 0.85 else random.choice(_TYPES)
    lines = [b"HTTP/1.1 " + status, b"Content-Type: " + media_type, b"Connection: close"]
    if random.random() < 0.2:
        lines.append(random.choice(_HEADERS))
    if random.random() < 0.05:
        lines.append(b"Content-Encoding: gzip")
        whole = random.choice((body, b"[" * 5_000_000, b" " * 25_000_000))
        body = gzip.compress(whole)[: random.choice((None, -4, 40))]
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if random.random() < 0.7:
        return ((0.0, head + body),)
    at = random.randrange(len(body) + 1)
    pause = random.choice((0.0, 0.01, 0.3, 2.5))
    return ((0.0, head), (0.0, body[:at]), (pause, body[at:] if random.random() < 0.7 else b""))


def _body(random: Random) -> bytes:
    roll = random.random()
    if roll < 0.35:
        return hostile.encoded(_reply(random))
    if roll < 0.9:
        frames = [_frame(random) for _ in range(random.choice((0, 1, 2, 5)))]
        frames += [_last(random)] if random.random() < 0.7 else []
        return b"".join(frames)
    if roll < 0.92:
        return random.choice(_SMALL_FRAMES) * random.choice((30_000, 300_000))
    if roll < 0.94:
        return hostile.encoded({"response": "x", "data": {"a": hostile.many_nodes(random, 1_000_000)}})
    return random.randbytes(random.choice((1, 100, 10_000)))


def _reply(random: Random) -> Any:
    whole: dict[str, Any] = {
        "response": "fine",
        "confidence": 0.5,
        "data": {"a": 1},
        "usage": {"inputTokens": 1, "outputTokens": 2},
    }
    if random.random() < 0.4:
        choice: dict[str, Any] = {"index": 0, "message": {"content": "fine"}, "finish_reason": "stop"}
        whole = {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
        inner: dict[str, Any] = random.choice((choice, whole["usage"], choice["message"]))
        inner[random.choice(tuple(inner))] = hostile.value(random)
    for _ in range(random.choice((0, 1, 2))):
        whole[random.choice((*whole, *_FRAME_KEYS))] = random.choice((hostile.value(random), [1], "x", {}, -1, 2))
    return whole


def _frame(random: Random) -> bytes:
    roll = random.random()
    frame: Any = hostile.value(random)
    if roll < 0.4:
        frame = {random.choice(_FRAME_KEYS): hostile.value(random) for _ in range(random.choice((1, 1, 2)))}
    elif roll < 0.5:
        frame = {"error": random.choice((*_ERRORS, frame))}
    elif roll < 0.75:
        delta: Any = random.choice(({"content": "a"}, {"refusal": "no"}, {"content": frame}, [], None))
        frame = {"choices": random.choice(([{"delta": delta, "finish_reason": None}], [], [1], None, frame))}
    elif roll < 0.95:
        frame = {"text": random.choice(("word ", hostile.text(random), "x" * 300_000))}
    return _line(random, hostile.encoded(frame))


def _last(random: Random) -> bytes:
    return _line(random, random.choice((*_LAST, hostile.encoded(_reply(random)))))


def _line(random: Random, frame: bytes) -> bytes:
    """As a server-sent event or a line of JSON, with the ends of lines that there are."""
    end = random.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r"))
    if random.random() < 0.3:
        return frame + end
    fields = (b"event: x" + end, b"id: \x00" + end, b"retry: 0" + end, b"\xef\xbb\xbf", b": c" + end)
    before = random.choice((b"", b"", b"", *fields))
    return before + b"data:" + random.choice((b" ", b"")) + frame + end + end
