"""Parses CloudEvents from HTTP requests: structured, binary and batched (the HTTP protocol binding)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request

from sevenfold.api.http.problems import FieldError, ProblemError, ProblemType
from sevenfold.api.http.strict_json import InvalidJsonError
from sevenfold.contracts.events.cloudevents import (
    MAX_EVENT_BYTES,
    CloudEvent,
    InvalidEventError,
    event_from_binary,
    event_from_json,
)
from sevenfold.contracts.json.pointers import escape_pointer
from sevenfold.contracts.json.strict import parse_json

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
    """The items of a request in order: an event, or the reason why it is not one. `is_single`: the request is
    not a batch.
    """

    items: list[CloudEvent | InvalidEventError]
    is_single: bool


async def parse_events(request: Request) -> EventBatch:
    """Parses the request. Raises 400, 415 or 422 if the body as a whole cannot be parsed."""
    body = await request.body()
    content_type = request.headers.get("content-type")
    media_type = (content_type or "").partition(";")[0].strip().lower()
    attributes = _parse_binary_attributes(request.headers)
    if (
        media_type not in (BATCH, _PLAIN) and len(body) > 2 * MAX_EVENT_BYTES
    ):  # twice, because white space and escapes count too
        raise invalid_event(InvalidEventError([("", f"an event may have at most {MAX_EVENT_BYTES:,} bytes as JSON")]))
    if media_type == BATCH:
        return _parse_batch(_parse_json(body))
    if media_type == STRUCTURED:
        return EventBatch([_parse_event(_parse_json(body))], is_single=True)
    if media_type.startswith(_ANY_OTHER):
        raise ProblemError(
            ProblemType.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {media_type} is not supported. Send {STRUCTURED} or {BATCH}.",
        )
    if attributes:
        return EventBatch([_parse_binary(attributes, content_type, body)], is_single=True)
    if media_type == _PLAIN:  # what people send from a shell
        raw = _parse_json(body)
        return _parse_batch(raw) if isinstance(raw, list) else EventBatch([_parse_event(raw)], is_single=True)
    raise ProblemError(
        ProblemType.UNSUPPORTED_MEDIA_TYPE,
        f"The request is not a CloudEvent. Send it as {STRUCTURED}, as {BATCH}, or in binary mode with ce- headers.",
    )


def _parse_json(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError as error:
        raise InvalidJsonError(error) from None


def _parse_batch(raw: Any) -> EventBatch:
    if not isinstance(raw, list):
        raise ProblemError(
            ProblemType.INVALID, "A batch must be a JSON list of events.", errors=[_field_error("", "must be a list")]
        )
    if len(raw) > MAX_BATCH_EVENTS:
        detail = f"A batch may hold {MAX_BATCH_EVENTS:,} events; this one holds {len(raw):,}. Send several batches."
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
    """Returns the attributes in `ce-` headers, without the prefix. Values are percent-encoded UTF-8, quoted or not
    (the HTTP binding). Raises 422 if a value is malformed.
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
        raise ValueError("holds a percent sign that starts no escape; write it as %25")
    try:
        # the server decodes headers as Latin-1; senders that do not percent-encode send UTF-8
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
    """Returns the 422 of a single event that is invalid."""
    errors = [_field_error(name, detail) for name, detail in error.errors]
    return ProblemError(ProblemType.INVALID, f"The request is not a valid CloudEvent: {error}.", errors=errors)


def _field_error(name: str, detail: str) -> FieldError:
    pointer = "".join(f"/{escape_pointer(part)}" for part in name.split(".")) if name else ""
    return FieldError(pointer=pointer, detail=detail)
