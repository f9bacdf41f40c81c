"""Reads values of requests. Any JSON value may be anywhere, and none may cause an unexpected exception."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import JsonValue

from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentRequest
from sevenfold.contracts.payload import JsonObject

# Usual names of a text in an object.
TEXT_FIELDS = ("text", "content", "body", "document", "message", "feedback", "comment", "review")

# Control characters, lone surrogates (not encodable) and bidirectional overrides.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_DECIMAL = re.compile(r"\s{0,9}-?[0-9]{1,15}(?:\.[0-9]{1,15})?\s{0,9}")

# Sums, squares and quotients of such numbers stay far from a float's limits.
_LARGEST = 1e15
_SMALLEST = 1e-12
_MAX_POINTER = 200
_MAX_SAFE_INTEGER = 2**53 - 1


class Found(NamedTuple):
    """A value and its location in the request (RFC 6901)."""

    value: JsonValue
    pointer: str


class FoundText(NamedTuple):
    """A cleaned text and its location in the request (RFC 6901)."""

    text: str
    pointer: str


def clean(text: str) -> str:
    """Replaces each unprintable character by a space; newlines and tabs stay."""
    return _UNPRINTABLE.sub(" ", text)


def one_line(text: str, limit: int) -> str:
    """Returns the text on one line, truncated to `limit` characters, for quoting in an answer."""
    # Later text can matter only if the text is mostly blank.
    line = " ".join(clean(text[: 8 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def pointer_to(parent: str, key: str) -> str:
    """Returns the pointer to an object's member, truncated however long the client's keys are."""
    escaped = clean(key[:_MAX_POINTER]).replace("~", "~0").replace("/", "~1")
    return f"{parent}/{escaped}"[:_MAX_POINTER]


def number(value: JsonValue) -> float | None:
    """Returns the value as a float if it is a number, or a decimal string, of usable magnitude."""
    if isinstance(value, str):
        value = float(value) if _DECIMAL.fullmatch(value) else None
    if value is None or isinstance(value, bool | list | dict):
        return None
    # Written so that it rejects NaN too.
    if not -_LARGEST <= value <= _LARGEST:
        return None
    return float(value) if abs(value) >= _SMALLEST else 0.0


def identifier(value: JsonValue) -> str | int | None:
    """Returns the value as an id to echo: a short string, or an integer that JavaScript can represent."""
    if isinstance(value, str):
        return one_line(value, 128) or None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_SAFE_INTEGER:
        return value
    return None


def show(value: float) -> str:
    """Formats a number for people: 1,234.5 or 0.0042."""
    return f"{value:.3g}" if 0 < abs(value) < 1 else f"{value:,.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class InputScope:
    """The objects of a request in which a task looks for its input, in order of precedence, by their pointers."""

    places: tuple[tuple[str, JsonObject], ...]

    @classmethod
    def from_request(cls, request: AgentRequest) -> "InputScope":
        """`data`, then `params`; the reverse if the request has only params (as polling requests do)."""
        data, params = ("/data", request.data), ("/params", request.params)
        return cls((params, data) if request.params and not request.data else (data, params))

    def narrow(self, *names: str) -> "InputScope":
        """Returns this scope with the first object of these names in front, if there is one."""
        found = self.find(*names)
        if found is None or not isinstance(found.value, dict):
            return self
        return InputScope(((found.pointer, found.value), *self.places))

    def find(self, *names: str) -> Found | None:
        """Returns the value of the first of these names that is present and not null."""
        for name in names:
            for pointer, place in self.places:
                value = place.get(name)
                if value is not None:
                    return Found(value, f"{pointer}/{name}")
        return None

    def text(self, *names: str) -> FoundText | None:
        """Returns the text of the first of these names. Raises AgentRejected if it is not a string."""
        found = self.find(*names)
        if found is None:
            return None
        if not isinstance(found.value, str):
            raise AgentRejected(f"{found.pointer} must be a string.", pointer=found.pointer)
        return FoundText(clean(found.value), found.pointer)

    def word(self, *names: str) -> str | None:
        """Returns a short string of the first of these names that has one; other values are ignored."""
        for name in names:
            found = self.find(name)
            if found is not None and isinstance(found.value, str) and found.value.strip():
                return one_line(found.value, 200) or None
        return None

    def number(self, *names: str) -> float | None:
        """Returns a number of the first of these names that has one; other values are ignored."""
        for name in names:
            found = self.find(name)
            usable = number(found.value) if found is not None else None
            if usable is not None:
                return usable
        return None

    def option(self, name: str, default: float, low: float, high: float) -> float:
        """Returns a numeric option of the task. Raises AgentRejected outside `low` to `high`."""
        found = self.find(name)
        if found is None:
            return default
        value = number(found.value)
        if value is None or not low <= value <= high:
            raise AgentRejected(
                f"{found.pointer} must be a number from {show(low)} to {show(high)}.", pointer=found.pointer
            )
        return value

    def missing(self, name: str, what: str) -> AgentRejected:
        """Returns the rejection of a request without its input."""
        pointer = f"{self.places[0][0]}/{name}"
        return AgentRejected(f"{what}: {pointer} is missing.", pointer=pointer)


def texts_in(value: JsonValue, pointer: str, least_words: int) -> Iterable[FoundText]:
    """Yields the texts below a value, in document order.

    A text is a string of at least `least_words` words, or any string below a key that names a text.
    """
    pending = [(value, pointer, least_words)]
    while pending:
        here, place, least = pending.pop()
        if isinstance(here, dict):
            pending.extend(
                (child, pointer_to(place, key), 1 if _names_text(key) else least_words)
                for key, child in reversed(here.items())
            )
        elif isinstance(here, list):
            pending.extend((here[i], pointer_to(place, str(i)), least) for i in reversed(range(len(here))))
        elif isinstance(here, str) and len(here.split(None, least)) >= least:
            yield FoundText(clean(here), place)


def _names_text(key: str) -> bool:
    return key[:40].casefold().removesuffix("s") in TEXT_FIELDS


def is_larger_than(request: AgentRequest, limit: int) -> bool:
    """Whether the request's characters and values exceed the limit; stops counting there."""
    pending: list[JsonValue] = [request.query, request.context, request.data, request.params]
    weight = 0
    while pending and weight <= limit:
        value = pending.pop()
        weight += len(value) if isinstance(value, str | list | dict) else 1
        if isinstance(value, dict):
            pending.extend(value.values())
            weight += sum(map(len, value))
        elif isinstance(value, list):
            pending.extend(value)
    return weight > limit
