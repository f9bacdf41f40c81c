"""Makes a CloudEvent of a message that is none, by the map of its consumer."""

import base64
import re
from typing import Any

from sevenfold.adapters.brokers.message import Message
from sevenfold.contracts.cloudevents import CloudEvent, InvalidEventError, event_from_json
from sevenfold.contracts.message_maps import BODY, HEADERS, BodyFormat
from sevenfold.contracts.strict_json import parse_json

_MISSING = object()


def map_message(message: Message) -> CloudEvent:
    """Returns the event that the message's map makes of it. Raises InvalidEventError: the body has another format, a
    value that the event needs is missing, or is no text or number.
    """
    event_map = message.event_map
    assert event_map is not None, "called for messages with a map"  # noqa: S101
    body = _read_body(message, event_map.format)
    raw: dict[str, Any] = {"specversion": "1.0"}
    for name in ("type", "source", "id", "subject", "time"):
        value: str | None = getattr(event_map, name)
        found = _MISSING if value is None else _find(value, body, message)
        if found is not _MISSING and found is not None and found != "":
            raw[name] = _as_text(name, found)
        elif name in ("type", "source"):
            raise InvalidEventError([(f"/{name}", f"the message has nothing at {value}")])
    raw.setdefault("id", message.place)
    data = _find(event_map.data, body, message)
    if event_map.format is BodyFormat.BYTES and event_map.data == BODY:
        raw["data_base64"] = base64.b64encode(message.body).decode()
        raw["datacontenttype"] = message.content_type or "application/octet-stream"
    elif data is not _MISSING:
        raw["data"] = data
        raw["datacontenttype"] = "text/plain" if event_map.format is BodyFormat.TEXT else "application/json"
    return event_from_json(raw)


def _read_body(message: Message, form: BodyFormat) -> Any:
    if form is BodyFormat.BYTES:
        return _MISSING
    try:
        return parse_json(message.body) if form is BodyFormat.JSON else message.body.decode()
    except ValueError as error:
        raise InvalidEventError([("", f"its body is not {form}: {error}")]) from None


def _find(value: str, body: Any, message: Message) -> Any:
    """Returns what a value of a map leads to."""
    if value.startswith(f"{HEADERS}/"):
        name = _unescape(value.removeprefix(f"{HEADERS}/")).lower()
        return next((text for header, text in message.headers.items() if header.lower() == name), _MISSING)
    if not value.startswith(BODY):
        return value
    found = body
    for token in value.split("/")[1:]:
        found = _step(found, _unescape(token))
    return found


def _step(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key, _MISSING)
    if isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", key) and int(key) < len(value):
        return value[int(key)]
    return _MISSING


def _unescape(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise InvalidEventError([(f"/{name}", "the message has neither text nor a number for it")])
