"""Headers: odd values, repeated lines and odd bytes, on requests that are otherwise in order."""

from bench.fuzz.campaign import JSON, Case, path
from bench.fuzz.exchange import HANG_SECONDS, Request

_NAMES: dict[bytes, tuple[bytes, ...]] = {
    b"Prefer": (
        b"wait=0", b"wait=-1", b"wait=1e3", b"wait=999999", b"wait=9999999", b"wait=\xb2", b'wait="0"', b"wait",
        b"wait==1", b"respond-async", b"respond-async, wait=0", b";;,,==", b"a" * 8_000, b"wait=0;wait=1",
        b"RESPOND-ASYNC",
    ),
    b"Accept": (
        b"*/*;q=nan", b"text/event-stream;q=inf", b"text/event-stream;q=-1", b"application/x-ndjson;q=0", b";;;",
        b",", b"text/*;q=0.5, */*;q=0", b"\xff/\xfe", b"text/event-stream;q=1e999", b"a" * 8_000,
        b",".join([b"a/b"] * 2_000), b"",
    ),
    b"If-None-Match": (b"*", b'W/"', b'"' * 500, b",,,", b'W/"a", "b"', b"\xff", b"a" * 8_000, b"W/W/W/*"),
    b"Idempotency-Key": (
        b"", b" ", b'"', b'""', b'"a"', b'"a', b"a b", b"\xe9", b"a" * 255, b"a" * 256, b"'; --", b"a,b", b"\x7f",
        b"\\",
    ),
    b"Last-Event-ID": (
        b"0", b"-1", b"1.5", b"9" * 16, b"9" * 30, b"0" * 20 + b"9" * 30, b"0" * 20 + b"9" * 4_300, b"9" * 9_000,
        b"\xb2", b"", b"999999999999999-evt_" + b"a" * 26, b"0-evt_" + b"a" * 26,
        b"253402300800000-rea_" + b"2" * 26, b"1-evt_short", b"62135596800000-evt_" + b"a" * 26,
        b"1795860000123-whk_" + b"a" * 26,
    ),
    b"X-Request-Id": (
        b"ok-1", b"", b"a" * 129, b"\xff", b"a b", b'{"a":1}', b"%0d%0aSet-Cookie: x", b"<x>", b"\x1b[31m",
    ),
    b"traceparent": (
        b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"ff-" + b"a" * 32 + b"-" + b"a" * 16 + b"-01", b"00-\xff",
        b"", b"00-" + b"a" * 32 + b"-" + b"a" * 16 + b"-01-extra", b"a" * 8_000,
    ),
    b"Content-Type": (
        b"application/json", b"application/json; charset=\xff", b"", b"text/plain", b";", b"application/json\x0b",
        b"*/*", b"application/problem+json", b"multipart/form-data; boundary=" + b"x" * 500,
        b"application/json, text/plain",
    ),
    b"Content-Encoding": (b"gzip", b"identity", b"br", b"\xff", b"gzip, gzip", b""),
    b"Content-Length": (
        b"+2", b"0x2", b"2, 2", b"-2", b"\xb2", b"0" * 5_000 + b"2", b"9" * 40, b"", b" 2 ", b"10000001",
    ),
    b"Transfer-Encoding": (b"identity", b"gzip, chunked", b"xchunked", b"chunked, chunked", b"\xff", b""),
    b"Host": (b"", b"a" * 5_000, b"\xff", b"[::1", b"127.0.0.1:99999", b"a b", b"evil.invalid"),
    b"Expect": (b"100-continue", b"200-ok", b""),
    b"Connection": (b"close, \xff", b"upgrade", b"keep-alive, close", b""),
    b"Cookie": (b"=;=;=", b"\xff=\xfe", b"a=" + b"b" * 8_000), b"Origin": (b"null", b"\xff"),
    b"X-Forwarded-For": (b"127.0.0.1, \xff", b"a" * 8_000), b"Range": (b"bytes=0-0", b"bytes=-1,-2,-3"),
}  # fmt: skip

# Headers whose odd values may leave the server waiting for bytes that never come, or make it hang up.
_FRAMING = frozenset({b"Content-Length", b"Transfer-Encoding"})
_ODD_LINES = (b"\x00", b"a\x00b", b" ", b"\x01\x02", b"\xff" * 100, b"x" * 20_000, b"(comment)", b"a\rb")


async def run(case: Case) -> None:
    """One request with one to three odd headers."""
    random = case.random
    request = _plain(case)
    names = random.sample(list(_NAMES), random.choice((1, 1, 2, 3)))
    odd = [(name, random.choice(_NAMES[name])) for name in names]
    if random.random() < 0.15:
        odd.append(random.choice(odd))
    if random.random() < 0.05:
        odd.append(
            (random.choice((b"X-Odd", b"X Odd", b"", b"X-\xff", b"X:Y", b"X" * 5_000)), random.choice(_ODD_LINES))
        )
    if random.random() < 0.01:
        odd += [(b"X-%d" % number, b"1") for number in range(random.choice((200, 3_000)))]
    framing = bool(_FRAMING & set(names))
    given = {name for name, _ in odd}
    kept = tuple(header for header in request.headers if header[0] not in given)
    # what is left unsaid about a body's length would be waited for
    close = ((b"Connection", b"close"),) if b"Connection" not in given else ()
    sent = Request(request.method, request.target, (*kept, *odd, *close), request.body)
    # a body that is announced and does not come is waited for
    await case.ask(sent, stream_seconds=0.3, timeout_seconds=2 if framing else HANG_SECONDS, may_be_cut=framing)


def _plain(case: Case) -> Request:
    """A request that is in order: those that start runs are few, since each costs the product some 30 ms."""
    random, known = case.random, case.campaign.known
    readings = (
        Request("GET", path("runs", known["qry"])),
        Request("GET", path("tasks", known["task"])),
        Request("GET", path("stream", known["str"])),
        Request("GET", path("runs", known["job"], "stream")),
        Request("GET", path("events", "stream")),
        Request("GET", path("runs") + b"?limit=2"),
        Request("GET", b"/health/live"),
        Request("POST", path("runs", known["qry"], "cancel")),
        Request("POST", path("patterns", "recommend"), (JSON,), b'{"client": "own"}'),
        Request("POST", path("query"), (JSON,), b'{"query": 1}'),
    )
    starts = (
        Request("POST", path("query"), (JSON,), b'{"query": "hi"}'),
        Request("POST", path("stream"), (JSON,), b'{"query": "hi"}'),
        Request("POST", path("tasks"), (JSON,), b'{"task": "generate_report", "params": {"a": 1}}'),
        Request("POST", path("hybrid"), (JSON,), b'{"query": "hi"}'),
        Request("POST", path("events", known["evt"], "replay")),
    )
    return random.choice(readings) if random.random() < 0.75 else random.choice(starts)
