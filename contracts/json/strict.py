"""Strict JSON parsing with limits, for every input.

The parser holds the interpreter's lock, and later readers refuse values beyond these limits. So documents are
measured before they are parsed, and values before they are stored.
"""

import math
from typing import Any

from pydantic import JsonValue
from pydantic_core import from_json, to_json

# Maximum nesting of objects and lists. Temporal's and pydantic's parsers stop at 200.
MAX_DEPTH = 64

# Maximum values in one document, without keys: 200,000 take about 0.1 s to parse and validate.
MAX_NODES = 200_000

# Python needs time quadratic in an integer's digits, and prints none with more than 4,300.
_MAX_INTEGER_BITS = 1_000

_BOM = b"\xef\xbb\xbf"

# Only such numbers can overflow a double: an exponent of two digits or more, or 300 digits. Searched in a copy with
# every digit replaced by 0, which takes 0.03 s for 10 MB; a regular expression takes 0.3 s.
_SIMPLIFIED = bytes.maketrans(b"123456789E", b"000000000e")
_TWO_DIGIT_EXPONENT = b"0e00"
_THREE_HUNDRED_DIGITS = b"0" * 300


class JsonLimitError(ValueError):
    """Which limit a document or value exceeds; the message is a clause such as "it is nested more than 64 deep"."""


def parse_json(document: bytes | str, *, max_nodes: int = MAX_NODES) -> JsonValue:
    """Parses a JSON document, with or without a byte order mark.

    Raises ValueError with position and reason for invalid JSON, NaN, infinite numbers (`1e400`), lone surrogates, and
    for documents beyond the limits.
    """
    data = document.encode() if isinstance(document, str) else document
    data = data.removeprefix(_BOM)
    if _count_nodes(data, max_nodes) > max_nodes:
        raise JsonLimitError(f"it has more than {max_nodes:,} values")
    value: JsonValue = from_json(data, allow_inf_nan=False, cache_strings="keys")
    deep = data.count(b"[") + data.count(b"{") > MAX_DEPTH
    if deep or _may_be_infinite(data):
        check_value(value)
    return value


def _may_be_infinite(data: bytes) -> bool:
    simplified = data.translate(_SIMPLIFIED, b"+")
    return _TWO_DIGIT_EXPONENT in simplified or _THREE_HUNDRED_DIGITS in simplified


def _count_nodes(data: bytes, limit: int) -> int:
    """An upper bound of the number of values; exact if the first estimate exceeds the limit."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") < limit:
        return 0
    # Strings may contain these characters: remove them, escaped quotes first.
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if data.count(b'"') > 4 * limit:  # A string is a key or a value, and has two quotes.
        return limit + 1
    outside = b"".join(data.split(b'"')[::2])
    return 1 + outside.count(b",") + outside.count(b"[") + outside.count(b"{")


def check_value(value: Any, *, finite: bool = True) -> None:
    """Raises JsonLimitError for a value that is nested too deep or contains a number that JSON cannot represent, and
    for infinite numbers and NaN if `finite`.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = _children(level, finite=finite)
        if not level:
            return
    raise JsonLimitError(f"it is nested more than {MAX_DEPTH} deep")


def _children(containers: list[Any], *, finite: bool) -> list[Any]:
    """Returns the lists and objects one level down; checks the numbers among the others."""
    found: list[Any] = []
    for container in containers:
        kind = type(container)
        members = container.values() if kind is dict else container if kind in (list, tuple) else (container,)
        for member in members:
            kind = type(member)
            if kind in (dict, list, tuple):
                found.append(member)
            elif kind is float and finite and not math.isfinite(member):
                raise JsonLimitError("it has a number that is infinite or NaN")
            elif kind is int and member.bit_length() > _MAX_INTEGER_BITS:
                raise JsonLimitError("it has an integer of more than 300 digits")
    return found


def check_answer(value: Any) -> None:
    """Raises ValueError (JsonLimitError) for an agent's value that JSON cannot represent or that exceeds the limits.
    NaN is written as null.
    """
    check_value(value, finite=False)
    if _count_nodes(to_json(value), MAX_NODES) > MAX_NODES:
        raise JsonLimitError(f"it has more than {MAX_NODES:,} values")
