"""JSON at every way in: read strictly, and within limits that keep one document from hurting anybody else.

The parser holds the interpreter's lock, and a value that is nested or large beyond these limits would be refused by
whoever reads it next: so documents are measured before they are parsed, and values before they are kept.
"""

import math
from typing import Any

from pydantic import JsonValue
from pydantic_core import from_json, to_json

# Objects and lists within each other. Temporal's and pydantic's readers give up at 200.
MAX_DEPTH = 64

# Values in one document, keys not counted: 200,000 take about 0.1 s to parse and validate.
MAX_NODES = 200_000

# Python takes time by the square of an integer's digits, and writes none with more than 4,300.
_MAX_INTEGER_BITS = 1_000

_BOM = b"\xef\xbb\xbf"

# Only a number like these can be too large for a double: with an exponent of two digits or more, or 300 digits.
# Searched in a copy where every digit is a 0: a regular expression takes 0.3 s for 10 MB, this 0.03.
_SIMPLIFIED = bytes.maketrans(b"123456789E", b"000000000e")
_TWO_DIGIT_EXPONENT = b"0e00"
_THREE_HUNDRED_DIGITS = b"0" * 300


class JsonLimitError(ValueError):
    """Why a document or a value is not taken; the message is a clause such as "it is nested more than 64 deep"."""


def parse_json(document: bytes | str, *, max_nodes: int = MAX_NODES) -> JsonValue:
    """The value of a JSON document, with or without a byte order mark.

    Raises ValueError with the place and the reason: for what is not JSON, NaN, infinite numbers (`1e400`), lone
    surrogates, and for what exceeds the limits.
    """
    data = document.encode() if isinstance(document, str) else document
    data = data.removeprefix(_BOM)
    if _count_nodes(data, max_nodes) > max_nodes:
        raise JsonLimitError(f"it holds more than {max_nodes:,} values")
    value: JsonValue = from_json(data, allow_inf_nan=False, cache_strings="keys")
    deep = data.count(b"[") + data.count(b"{") > MAX_DEPTH
    if deep or _may_be_infinite(data):
        check_value(value)
    return value


def _may_be_infinite(data: bytes) -> bool:
    simplified = data.translate(_SIMPLIFIED, b"+")
    return _TWO_DIGIT_EXPONENT in simplified or _THREE_HUNDRED_DIGITS in simplified


def _count_nodes(data: bytes, limit: int) -> int:
    """An upper bound of the number of values; exact where the first estimate is above the limit."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") < limit:
        return 0
    # strings may hold any of these characters: leave them out, escaped quotes first
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if data.count(b'"') > 4 * limit:  # a string is a key or a value, and has two quotes
        return limit + 1
    outside = b"".join(data.split(b'"')[::2])
    return 1 + outside.count(b",") + outside.count(b"[") + outside.count(b"{")


def check_value(value: Any, *, finite: bool = True) -> None:
    """Raises JsonLimitError for a value that is nested too deeply or holds a number that JSON cannot carry; one that
    is infinite or NaN unless not `finite`.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = _children(level, finite=finite)
        if not level:
            return
    raise JsonLimitError(f"it is nested more than {MAX_DEPTH} deep")


def _children(containers: list[Any], *, finite: bool) -> list[Any]:
    """The lists and objects one level down; checks the numbers among the others."""
    found: list[Any] = []
    for container in containers:
        kind = type(container)
        members = container.values() if kind is dict else container if kind in (list, tuple) else (container,)
        for member in members:
            kind = type(member)
            if kind in (dict, list, tuple):
                found.append(member)
            elif kind is float and finite and not math.isfinite(member):
                raise JsonLimitError("it holds a number that is infinite or NaN")
            elif kind is int and member.bit_length() > _MAX_INTEGER_BITS:
                raise JsonLimitError("it holds an integer of more than 300 digits")
    return found


def check_answer(value: Any) -> None:
    """Raises ValueError, such as a JsonLimitError, for an agent's value that JSON cannot carry or readers refuse. NaN
    is written as null.
    """
    check_value(value, finite=False)
    if _count_nodes(to_json(value), MAX_NODES) > MAX_NODES:
        raise JsonLimitError(f"it holds more than {MAX_NODES:,} values")
