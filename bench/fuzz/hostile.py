"""Hostile values: strings, numbers, moments and JSON documents that are seldom what a reader expects."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

# Nesting around the limits that JSON readers have, and far beyond them.
DEPTHS = (1, 5, 50, 60, 61, 62, 63, 64, 65, 66, 150, 190, 199, 200, 201, 202, 255, 256, 400, 1_000, 5_000, 10_000)


class Raw(bytes):
    """JSON text that stands in a document as it is, valid or not."""


# Some of them are no numbers to a strict reader.
NUMBERS: tuple[Any, ...] = (
    0, -0.0, 1, -1, 0.1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 5e-324, 1.7e308,
    Raw(b"1e400"), Raw(b"-1e400"), Raw(b"1e-400"), Raw(b"NaN"), Raw(b"Infinity"), Raw(b"-Infinity"), Raw(b"01"),
    Raw(b"+1"), Raw(b"1."), Raw(b".5"), Raw(b"0x10"), Raw(b"1_000"), Raw(b"-"), Raw(b"1" * 4_300), Raw(b"1" * 4_301),
    Raw(b"9" * 100_000), Raw(b"0." + b"3" * 50_000), Raw(b"1e" + b"9" * 400), Raw("\u0661".encode()),
)  # fmt: skip

TEXTS: tuple[str, ...] = (
    "", " ", "\x00", "a\x00b", "\n", "\r\n", "\t", "\x1b[31m", "\x7f", "\x80", "\x9f", "\ufeff", "\u202e", "\u2028",
    "\ud7ff", "\ue000", "\uffff", "\ufffd", "😀", "é", "e\u0301", "İ", "ß", "ﬁ", "٣", "²", "\uff11\uff12", "\u00a0",
    "null", "true", "NaN", "0", "-1", "1e999", "' OR ''='", "''", '"', "\\", "\\'", "`", "%", "%s%n", "%00", "%ff",
    "_", "--", "/*", ";", "?", ":v1", "${x}", "{{x}}", "../../etc/passwd", "<script>", "a" * 41, "a" * 257,
    "x" * 1_025, "x" * 9_000, "😀" * 300, "\u0301" * 500, "default:subscriptions", "evt_", "qry_" + "a" * 26,
    "whk_" + "a" * 26, "self", "__class__",
)  # fmt: skip

SURROGATES = ("\ud800", "a\udfffb", "\udc00\ud800")

MOMENTS: tuple[str, ...] = (
    "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z",
    "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00", "2026-01-01T00:00:00",
    "2026-01-01t00:00:00z", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00.123456789123456789Z",
    "2026-01-01T24:00:00Z", "2026-12-31T23:59:60Z", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00+99:99",
    "2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00+23:59:59", "1677-09-21T00:12:43Z", "2262-04-11T23:47:17Z",
    "2026-01-01T00:00:00Z'", "1e400", "1764000000", "-1", "now", "\uff12\uff10\uff12\uff16-01-01T00:00:00Z",
    "2026-01-01T00:00:00\u2028Z", "",
)  # fmt: skip


class Members(list[tuple[str, Any]]):
    """An object's members, names repeated if wished."""


def encoded(value: Any) -> bytes:
    """JSON of a value that may hold Raw and Members. Strings are escaped, so that lone surrogates pass."""
    match value:
        case Raw():
            return bytes(value)
        case Members():
            return b"{" + b",".join(json.dumps(name).encode() + b":" + encoded(one) for name, one in value) + b"}"
        case dict():
            return encoded(Members(value.items()))
        case list():
            return b"[" + b",".join(map(encoded, value)) + b"]"
    return json.dumps(value).encode()


def text(random: Random) -> str:
    """A string, now and then one that no encoder takes, or a long one."""
    roll = random.random()
    if roll < 0.05:
        return random.choice(SURROGATES)
    if roll < 0.1:
        return random.choice("aé😀 \n") * random.choice((100, 1_000, 10_000, 100_000))
    if roll < 0.3:
        return "".join(chr(random.randrange(1, 0xD800)) for _ in range(random.randrange(1, 30)))
    return random.choice(TEXTS)


def number(random: Random) -> Any:
    """A number; some of them are none to every reader."""
    return random.choice(NUMBERS)


def nested(random: Random, depth: int | None = None) -> Raw:
    """Lists or objects in each other, now and then not closed."""
    depth = depth or random.choice(DEPTHS)
    kind = random.random()
    if kind < 0.1:
        return Raw(b"[" * depth)
    if kind < 0.6:
        return Raw(b"[" * depth + b"]" * depth)
    return Raw(b'{"a":' * depth + b"1" + b"}" * depth)


def nested_near_limit(random: Random) -> Raw:
    """A depth that one reader may take, and the next, who finds it within something else, may not."""
    return nested(random, random.choice((random.randrange(55, 67), random.randrange(185, 203))))


def value(random: Random, level: int = 0) -> Any:
    """Any JSON value, valid or not."""
    roll = random.random()
    if roll < 0.3:
        return text(random)
    if roll < 0.5:
        return number(random)
    if roll < 0.6:
        return random.choice((True, False, None, [], {}, [None], {"": None}, [[]], ""))
    if roll < 0.72:
        return nested(random)
    if roll < 0.8:
        return random.choice(MOMENTS)
    if level > 2:
        return None
    if roll < 0.9:
        return [value(random, level + 1) for _ in range(random.randrange(5))]
    return Members((text(random), value(random, level + 1)) for _ in range(random.randrange(5)))


def many_nodes(random: Random, size: int) -> Raw:
    """About `size` bytes of JSON that are very many small values: few bytes for a reader, much work for its owner."""
    unit = random.choice((b"[]", b"{}", b"0", b'""', b"null", b'{"a":[]}', b"[[],[]]"))
    return Raw(b"[" + b",".join([unit] * (size // (len(unit) + 1))) + b"]")


# JSON of a size that costs more than it weighs: many names, many values, long numbers, escapes.
_HEAVY: tuple[Callable[[int], bytes], ...] = (
    lambda size: b"{" + b",".join(b'"%d":0' % number for number in range(min(size // 10, 199_000))) + b"}",
    lambda size: b"{" + b",".join(b'"%020d":[]' % number for number in range(size // 26)) + b"}",
    lambda size: b"{" + b",".join(b'"%050d":1' % number for number in range(min(size // 55, 199_000))) + b"}",
    lambda size: b"[" + b",".join([b"9" * 4_000] * (size // 4_001)) + b"]",
    lambda size: b"[" + b",".join([b"0." + b"1" * 5_000] * (size // 5_003)) + b"]",
    lambda size: b"[" + b",".join([b'"' + b"x" * 48 + b'"'] * (size // 51)) + b"]",
    lambda size: b'"' + b"\\u0041" * (size // 6) + b'"',
    lambda size: b'"' + b"\\ud83d\\ude00" * (size // 12) + b'"',
    lambda size: b'"' + b'\\"' * (size // 2) + b'"',
    lambda size: b'"' + b"[{,:" * (size // 4) + b'"',
    lambda size: b'"' + b"a b. " * (size // 5) + b'"',
    lambda size: b" " * size + b"1",
)


def heavy(random: Random, size: int) -> Raw:
    """About `size` bytes of such JSON, or of very many small values."""
    return many_nodes(random, size) if random.random() < 0.2 else Raw(random.choice(_HEAVY)(size))


def damaged(random: Random, document: bytes) -> bytes:
    """The bytes of a document, spoiled in one of the usual ways."""
    at = random.randrange(len(document) + 1)
    junk = random.choice(
        (b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\\u", b'"')
    )
    spoilt: Sequence[bytes] = (
        b"",
        document[:at],
        document[at:],
        document[:at] + junk + document[at:],
        b"\xef\xbb\xbf" + document,
        document + document,
        document + b"\x00",
        b" " * 5_000 + document + b"\n" * 5_000,
        document.decode("utf-8", "replace").encode("utf-16"),
        document.replace(b'"', b"'"),
        bytes(byte ^ (1 << random.randrange(8)) if random.random() < 0.02 else byte for byte in document[:20_000]),
    )
    return random.choice(spoilt)
