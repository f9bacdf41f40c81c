"""CloudEvents as hostile producers send them: structured, as headers, and in batches."""

import gzip
from random import Random
from typing import Any
from urllib.parse import quote

from bench.fuzz import hostile
from bench.fuzz.campaign import CONTENT_TYPE, Case, path
from bench.fuzz.exchange import Request

_TARGET = path("events")
_STRUCTURED = (CONTENT_TYPE, b"application/cloudevents+json")
_BATCH = (CONTENT_TYPE, b"application/cloudevents-batch+json")

_CONTENT_TYPES = (
    b"application/cloudevents+json; charset=utf-16", b"application/cloudevents+json; charset=latin-1",
    b"application/cloudevents+xml", b"application/cloudevents-batch+avro", b"APPLICATION/CLOUDEVENTS+JSON;;",
    b"application/cloudevents", b"application/json", b"application/json; charset=\xff",
    b"text/plain; charset=latin-1", b"text/plain", b"text/\xe9", b"application/octet-stream",
    b"application/vnd.x+json;a=b", b"a" * 300, b"/", b";", b"", b"application/json\t;x",
    b"multipart/form-data; boundary=x",
)  # fmt: skip
_ATTRIBUTES = (
    "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64",
    "correlationid", "causationid", "hops", "traceparent", "replayof", "partitionkey", "model_config", "copy",
    "json", "self", "extensions", "attribute", "x" * 41, "Ä", "a-b", "",
)  # fmt: skip
_HEADER_VALUES = (
    b"", b"plain", b'"quoted \\" text"', b"%E2%82%AC", b"%e2%82", b"%ED%A0%80", b"%FF%FE", b"%", b"%zz", b"%00",
    b"%0a", b"%25", b"\xff\xfe", b"\xc3\xa9", b"a\tb", b"a'b\"c`d\\e", b"1.0", b"0.3", b"9" * 4_000, b"-1",
    b"%D9%A3", b"%C2%B2", b"true", b"a" * 4_097, b"%F0%9F%98%80" * 256, b"http://[::1", b"urn:x y", b"//", b"%20",
    b"' OR ''='", b"null",
)  # fmt: skip


async def run(case: Case) -> None:
    """One message."""
    make = case.random.choice((_structured, _structured, _binary, _binary, _batch))
    await case.ask(make(case))


def _event(case: Case, suffix: str = "") -> dict[str, Any]:
    """A valid event of this case."""
    return {
        "specversion": "1.0",
        "id": f"{case.name}{suffix}",
        "source": "/fuzz/events",
        "type": "fuzz.event",
        "subject": "s",
        "time": "2026-11-22T10:00:00Z",
        "datacontenttype": "application/json",
        "data": {"id": 1, "items": [1, 2, {"a": "b"}]},
    }


def _spoilt(random: Random, event: dict[str, Any]) -> dict[str, Any]:
    roll = random.random()
    if roll < 0.1:
        event["time"] = random.choice(hostile.MOMENTS)
    elif roll < 0.3:
        event["data"] = hostile.nested_near_limit(random)
    elif roll < 0.32:
        # attributes without number, each within its limit
        event |= {f"x{number}": "y" * random.choice((1, 100, 4_000)) for number in range(random.choice((30, 230)))}
    elif roll < 0.34:
        event["data"] = hostile.heavy(random, random.choice((100_000, 990_000, 1_000_000, 5_000_000)))
    elif roll < 0.4:
        event |= {"data": None, "data_base64": random.choice(("", "YQ==", "!!", "YQ", hostile.text(random)))}
    elif roll < 0.85:
        name = random.choice(_ATTRIBUTES)
        event[name] = hostile.value(random)
    elif roll < 0.9:
        event |= {"hops": random.choice((1, "3", "٣", 10**9, "9" * 4_000)), "correlationid": hostile.text(random)}
    return event


def _structured(case: Case) -> Request:
    random = case.random
    body = hostile.encoded(_spoilt(random, _event(case)))
    headers = [_STRUCTURED]
    if random.random() < 0.15:
        headers = [(CONTENT_TYPE, random.choice(_CONTENT_TYPES))]
    if random.random() < 0.1:
        body = hostile.damaged(random, body)
    if random.random() < 0.05:
        headers.append((b"Content-Encoding", random.choice((b"gzip", b"deflate", b"br", b"\xff"))))
        body = random.choice((gzip.compress(body), body))
    return Request("POST", _TARGET, tuple(headers), body)


def _batch(case: Case) -> Request:
    random = case.random
    events: list[Any] = [_spoilt(random, _event(case, f"-{number}")) for number in range(random.choice((0, 1, 2, 4)))]
    if random.random() < 0.2:
        events.append(hostile.value(random))
    if events and random.random() < 0.2:
        events.append(events[0])
    if random.random() < 0.03:
        events = [0] * random.choice((1_000, 1_001, 100_000))
    body = hostile.encoded(random.choice((events, events, events, {"a": events})))
    return Request("POST", _TARGET, (_BATCH,), hostile.damaged(random, body) if random.random() < 0.05 else body)


def _binary(case: Case) -> Request:
    random = case.random
    attributes = {"specversion": b"1.0", "id": case.name.encode(), "source": b"/fuzz/events", "type": b"fuzz.event"}
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        name = random.choice(_ATTRIBUTES)
        attributes[name] = random.choice(_HEADER_VALUES)
        if random.random() < 0.3:
            attributes[name] = quote(hostile.text(random), safe="", errors="surrogatepass").encode()[:9_000]
    if random.random() < 0.15:
        attributes["time"] = quote(random.choice(hostile.MOMENTS)).encode()
    headers = [(b"ce-" + name.encode(), value) for name, value in attributes.items()]
    if random.random() < 0.1:
        headers.append((random.choice((b"CE-ID", b"ce-type", b"Ce-Subject")), random.choice(_HEADER_VALUES)))
    if random.random() < 0.02:
        headers += [(b"ce-x%d" % number, b"y" * 50) for number in range(1_000)]
    if random.random() < 0.9:
        headers.append((CONTENT_TYPE, random.choice((b"application/json", *_CONTENT_TYPES))))
    return Request("POST", _TARGET, tuple(headers), _data(random))


def _data(random: Random) -> bytes:
    roll = random.random()
    if roll < 0.2:
        return b""
    if roll < 0.5:
        return hostile.encoded(hostile.value(random))
    if roll < 0.6:
        return random.randbytes(random.choice((1, 100, 10_000)))
    if roll < 0.7:
        return hostile.encoded(hostile.nested_near_limit(random))
    return b'{"a": 1}'
