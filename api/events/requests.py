"""CloudEvents as HTTP carries them: structured, in binary mode, and in batches (the HTTP protocol binding)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request

from sevenfold.api.http.problems import FieldError, ProblemError, ProblemType, escape_pointer
from sevenfold.api.http.strict_json import InvalidJsonError
from sevenfold.contracts.cloudevents import (
    MAX_EVENT_BYTES,
    CloudEvent,
    InvalidEventError,
    event_from_binary,
    event_from_json,
)
from sevenfold.contracts.strict_json import parse_json

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
_PLAIN = "application/json"

MAX_BATCH_EVENTS = 1_000

_PREFIX = "ce-"
_ESCAPED = re.compile(r"\\(.)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ANY_OTHER = "application/cloudevents"


@dataclass(frozen=True)
class EventBatch:
    """What a request carried, in order: events, and why an item is none. `is_single`: it was not a batch."""

    items: list[CloudEvent | InvalidEventError]
    is_single: bool


async def parse_events(request: Request) -> EventBatch:
    """Reads the request. Raises the problem of a body that cannot be read at all."""
    body = await request.body()
    content_type = request.headers.get("content-type")
    media_type = (content_type or "").partition(";")[0].strip().lower()
    attributes = _parse_binary_attributes(request.headers)
    if media_type not in (BATCH, _PLAIN) and len(body) > 2 * MAX_EVENT_BYTES:  # white space and escapes count too
        raise invalid_event(InvalidEventError([("", f"an event may have {MAX_EVENT_BYTES:,} bytes as JSON")]))
    if media_type == BATCH:
        return _parse_batch(_parse_json(body))
    if media_type == STRUCTURED:
        return EventBatch([_parse_event(_parse_json(body))], is_single=True)
    if media_type.startswith(_ANY_OTHER):
        raise ProblemError(
            ProblemType.UNSUPPORTED_MEDIA_TYPE, f"Of CloudEvents, {STRUCTURED} and {BATCH} are taken here."
        )
    if attributes:
        return EventBatch([_parse_binary(attributes, content_type, body)], is_single=True)
    if media_type == _PLAIN:  # what people send by hand
        raw = _parse_json(body)
        return _parse_batch(raw) if isinstance(raw, list) else EventBatch([_parse_event(raw)], is_single=True)
    raise ProblemError(
        ProblemType.UNSUPPORTED_MEDIA_TYPE,
        f"Send a CloudEvent: as {STRUCTURED}, as {BATCH}, or in binary mode with its attributes as ce- headers.",
    )


def _parse_json(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError as error:
        raise InvalidJsonError(error) from None


def _parse_batch(raw: Any) -> EventBatch:
    if not isinstance(raw, list):
        raise ProblemError(
            ProblemType.INVALID, "A batch is a JSON list of events.", errors=[_field_error("", "must be a list")]
        )
    if len(raw) > MAX_BATCH_EVENTS:
        detail = f"A batch may hold {MAX_BATCH_EVENTS:,} events; this one holds {len(raw):,}."
        raise ProblemError(
            ProblemType.INVALID, detail, errors=[_field_error("", f"must hold at most {MAX_BATCH_EVENTS:,} events")]
        )
    return EventBatch([_parse_event(one) for one in raw], is_single=False)


def _parse_event(raw: Any) -> CloudEvent | InvalidEventError:
    try:
        return event_from_json(raw)
    except InvalidEventError as error:
        return error


def _parse_binary_attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """Without their prefix, as the HTTP binding has them: quoted or not, percent-encoded UTF-8. Raises the problem of
    one that is none.
    """
    found = {}
    for header, value in headers.items():
        if header.lower().startswith(_PREFIX):
            name = header.lower().removeprefix(_PREFIX)
            try:
                found[name] = _decode_header(value)
            except ValueError as error:
                raise invalid_event(InvalidEventError([(name, str(error))])) from None
    return found


def _decode_header(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = _ESCAPED.sub(r"\1", value[1:-1])
    if _BAD_ESCAPE.search(value):
        raise ValueError("holds a percent sign that begins no escape: write it as %25")
    try:
        # the server reads headers as Latin-1; those who do not encode mean UTF-8
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


def _parse_binary(
    attributes: dict[str, str], content_type: str | None, body: bytes
) -> CloudEvent | InvalidEventError:
    try:
        return event_from_binary(attributes, content_type, body)
    except InvalidEventError as error:
        return error


def invalid_event(error: InvalidEventError) -> ProblemError:
    """The problem of a single event that is none."""
    errors = [_field_error(name, detail) for name, detail in error.errors]
    return ProblemError(ProblemType.INVALID, f"This is no CloudEvent: {error}.", errors=errors)


def _field_error(name: str, detail: str) -> FieldError:
    pointer = "".join(f"/{escape_pointer(part)}" for part in name.split(".")) if name else ""
    return FieldError(pointer=pointer, detail=detail)
