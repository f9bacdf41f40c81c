"""Finds the lines of keys in TOML: the parser of the standard library does not return them.

A file's beginnings, line by line, are TOML too, except where one ends within a value of several lines. A key's line
is that where the first beginning starts to have it. So no other parser of TOML is needed.
"""

import tomllib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any


def find_line(text: str, location: Sequence[int | str]) -> int | None:
    """Returns the line (from 1) of the key at this location, or of the table that should have it; None if neither is
    in the text, or the text is no TOML.
    """
    lines = text.split("\n")
    whole = _parse(lines, len(lines))
    for depth in range(len(location), 0, -1):
        if whole is not None and _has(whole, location[:depth]):
            return _first_line(lines, location[:depth])
    return None


def _first_line(lines: list[str], path: Sequence[int | str]) -> int:
    """Bisects between `without`, a beginning that lacks the path, and `having`, one that has it."""
    without, having = 0, len(lines)
    while True:
        middle = (without + having) // 2
        beginning = _first_whole(lines, chain(range(middle, having), range(middle - 1, without, -1)))
        if beginning is None or beginning[0] == without:
            return without + 1
        end, found = beginning
        if _has(found, path):
            having = end
        else:
            without = end


def _first_whole(lines: list[str], ends: Iterable[int]) -> tuple[int, dict[str, Any]] | None:
    return next(((end, found) for end in ends if (found := _parse(lines, end)) is not None), None)


def _parse(lines: list[str], end: int) -> dict[str, Any] | None:
    try:
        return tomllib.loads("\n".join(lines[:end]))
    except tomllib.TOMLDecodeError:
        return None


def _has(value: Any, path: Sequence[int | str]) -> bool:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True
