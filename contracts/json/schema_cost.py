"""Refuses JSON Schemas that could take long: answers of people are checked within a workflow, on a worker's time."""

from typing import Any
from urllib.parse import unquote

_MAX_PARTS, _MAX_PATTERNS = 5_000, 50
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class InvalidSchemaError(Exception):
    """A schema cannot be used. The message has the reason."""


def check_cost(schema: Any) -> None:
    """Raises InvalidSchemaError for a schema that has too many parts once its references are written out, that
    contains itself, or that has too many patterns.
    """
    counter = _Counter(schema)
    try:
        counter.count(schema, frozenset())
    except RecursionError:
        raise InvalidSchemaError("it is nested too deeply") from None
    if counter.patterns > _MAX_PATTERNS:
        raise InvalidSchemaError(f"it has {counter.patterns} patterns, and may have {_MAX_PATTERNS}")


class _Counter:
    """Counts the parts of a schema: each definition once, and again wherever it is referred to."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._counts: dict[str, int] = {}
        self.patterns = 0

    def count(self, part: Any, open_refs: frozenset[str]) -> int:
        """Returns the parts of a part. `open_refs`: those that lead here. Raises InvalidSchemaError."""
        if isinstance(part, dict):
            total = 1 + sum(self._count_keyword(name, value, open_refs) for name, value in part.items())
        elif isinstance(part, list):
            total = 1 + sum(self.count(one, open_refs) for one in part)
        else:
            total = 0
        if total > _MAX_PARTS:
            raise InvalidSchemaError(f"with its references written out it has more than {_MAX_PARTS:,} parts")
        return total

    def _count_keyword(self, name: str, value: Any, open_refs: frozenset[str]) -> int:
        if name in _REFERENCES and isinstance(value, str):
            return self._count_reference(value, open_refs)
        if name == "patternProperties" and isinstance(value, dict):
            self.patterns += len(value)
        self.patterns += name == "pattern"
        return self.count(value, open_refs)

    def _count_reference(self, ref: str, open_refs: frozenset[str]) -> int:
        if ref in open_refs:
            raise InvalidSchemaError(f"{ref[:100]} refers to itself, so the time of a check has no bound")
        if ref not in self._counts:
            self._counts[ref] = self.count(_resolve(self._schema, ref), open_refs | {ref})
        return self._counts[ref]


def _resolve(schema: Any, ref: str) -> Any:
    """Returns what a reference into this schema means. Raises InvalidSchemaError for any other than `#/…`."""
    if ref != "#" and not ref.startswith("#/"):
        raise InvalidSchemaError(f"{ref[:100]} is no pointer into the schema, such as #/$defs/name")
    found = schema
    for part in unquote(ref).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            raise InvalidSchemaError(f"{ref[:100]} points to nothing")
    return found
