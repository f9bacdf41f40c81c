"""CloudEvents as HTTP carries them: structured, in binary mode, and in batches (the HTTP protocol binding)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request

from api.problems import FieldError, Kind, ProblemError, escaped
from api.strict_json import InvalidJsonError
from contracts.cloudevents import MOST_EVENT_BYTES, CloudEvent, EventRefusedError, event_from_binary, event_from_json
from contracts.strict_json import parse_json

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
_PLAIN = "application/json"

MOST_IN_A_BATCH = 1_000

_PREFIX = "ce-"
_ESCAPED = re.compile(r"\\(.)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ANY_OTHER = "application/cloudevents"


@dataclass(frozen=True)
class Batch:
    """What a request carried, in order: events, and why an item is none. `single`: it was not a batch."""

    items: list[CloudEvent | EventRefusedError]
    single: bool


async def events_of(request: Request) -> Batch:
    """Reads the request. Raises the problem of a body that cannot be read at all."""
    body = await request.body()
    content_type = request.headers.get("content-type")
    media_type = (content_type or "").partition(";")[0].strip().lower()
    attributes = _binary_attributes(request.headers)
    if media_type not in (BATCH, _PLAIN) and len(body) > 2 * MOST_EVENT_BYTES:  # white space and escapes count too
        raise refused(EventRefusedError([("", f"an event may have {MOST_EVENT_BYTES:,} bytes as JSON")]))
    if media_type == BATCH:
        return _batch(_json(body))
    if media_type == STRUCTURED:
        return Batch([_event(_json(body))], single=True)
    if media_type.startswith(_ANY_OTHER):
        raise ProblemError(Kind.UNSUPPORTED_MEDIA_TYPE, f"Of CloudEvents, {STRUCTURED} and {BATCH} are taken here.")
    if attributes:
        return Batch([_binary(attributes, content_type, body)], single=True)
    if media_type == _PLAIN:  # what people send by hand
        said = _json(body)
        return _batch(said) if isinstance(said, list) else Batch([_event(said)], single=True)
    raise ProblemError(
        Kind.UNSUPPORTED_MEDIA_TYPE,
        f"Send a CloudEvent: as {STRUCTURED}, as {BATCH}, or in binary mode with its attributes as ce- headers.",
    )


def _json(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError as error:
        raise InvalidJsonError(error) from None


def _batch(said: Any) -> Batch:
    if not isinstance(said, list):
        raise ProblemError(Kind.INVALID, "A batch is a JSON list of events.", errors=[_field("", "must be a list")])
    if len(said) > MOST_IN_A_BATCH:
        detail = f"A batch may hold {MOST_IN_A_BATCH:,} events; this one holds {len(said):,}."
        raise ProblemError(Kind.INVALID, detail, errors=[_field("", f"must hold at most {MOST_IN_A_BATCH:,} events")])
    return Batch([_event(one) for one in said], single=False)


def _event(said: Any) -> CloudEvent | EventRefusedError:
    try:
        return event_from_json(said)
    except EventRefusedError as error:
        return error


def _binary_attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """Without their prefix, as the HTTP binding has them: quoted or not, percent-encoded UTF-8. Raises the problem of
    one that is none.
    """
    found = {}
    for header, value in headers.items():
        if header.lower().startswith(_PREFIX):
            name = header.lower().removeprefix(_PREFIX)
            try:
                found[name] = _decoded(value)
            except ValueError as error:
                raise refused(EventRefusedError([(name, str(error))])) from None
    return found


def _decoded(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = _ESCAPED.sub(r"\1", value[1:-1])
    if _BAD_ESCAPE.search(value):
        raise ValueError("holds a percent sign that begins no escape: write it as %25")
    try:
        # the server reads headers as Latin-1; those who do not encode mean UTF-8
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


def _binary(attributes: dict[str, str], content_type: str | None, body: bytes) -> CloudEvent | EventRefusedError:
    try:
        return event_from_binary(attributes, content_type, body)
    except EventRefusedError as error:
        return error


def refused(error: EventRefusedError) -> ProblemError:
    """The problem of a single event that is none."""
    errors = [_field(name, detail) for name, detail in error.mistakes]
    return ProblemError(Kind.INVALID, f"This is no CloudEvent: {error}.", errors=errors)


def _field(name: str, detail: str) -> FieldError:
    pointer = "".join(f"/{escaped(part)}" for part in name.split(".")) if name else ""
    return FieldError(pointer=pointer, detail=detail)
