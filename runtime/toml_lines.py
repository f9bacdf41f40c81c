"""Finds the lines of keys in TOML: the parser of the standard library does not return them."""

import re
from collections import Counter
from collections.abc import Sequence

_HEADER = re.compile(r"\s*(?P<brackets>\[\[?)(?P<name>[^\]]+)\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*(?P<name>(?:"[^"]*"|'[^']*'|[A-Za-z0-9_.-])+)\s*=""")
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([^.\s"']+)""")


def find_line(text: str, location: Sequence[int | str]) -> int | None:
    """Returns the line (from 1) of the key at this location, or of the table that should have it; None if neither
    has one. Text of several lines that looks like a key may be taken for one.
    """
    lines = {tuple(path): number for path, number in reversed(list(_list_keys(text)))}
    wanted = tuple(location)
    while wanted:
        if wanted in lines:
            return lines[wanted]
        wanted = wanted[:-1]
    return None


def _list_keys(text: str) -> list[tuple[tuple[int | str, ...], int]]:
    """Returns the path of each header and key with its line. An entry of an array of tables has its index."""
    table: tuple[int | str, ...] = ()
    entries: Counter[tuple[int | str, ...]] = Counter()
    found: list[tuple[tuple[int | str, ...], int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if (header := _HEADER.match(line)) is not None:
            table = _place(_split(header["name"]), entries)
            if header["brackets"] == "[[":
                table = (*table, entries[table])
                entries[table[:-1]] += 1
            found.append((table, number))
        elif (key := _KEY.match(line)) is not None:
            found.append(((*table, *_split(key["name"])), number))
    return found


def _place(parts: list[str], entries: Counter[tuple[int | str, ...]]) -> tuple[int | str, ...]:
    """Returns the path of a table: a part that names an array means its last entry, unless it is the table itself."""
    path: tuple[int | str, ...] = ()
    for at, part in enumerate(parts):
        path = (*path, part)
        if entries[path] and at < len(parts) - 1:
            path = (*path, entries[path] - 1)
    return path


def _split(name: str) -> list[str]:
    return [double or single or bare for double, single, bare in _PART.findall(name)]
