"""Maps a message that is not a CloudEvent to one, by the map of its consumer."""

import base64
from typing import Any

from sevenfold.adapters.brokers.message import BrokerMessage
from sevenfold.contracts.events.cloudevents import CloudEvent, InvalidEventError, event_from_json
from sevenfold.contracts.json.pointers import MISSING, find_pointer, unescape_pointer
from sevenfold.contracts.json.strict import parse_json
from sevenfold.contracts.messages.maps import BODY, HEADERS, BodyFormat


def map_message(message: BrokerMessage) -> CloudEvent:
    """Returns the event that the message's map makes of it. Raises InvalidEventError: the body has another format, a
    value that the event needs is missing, or is no text or number.
    """
    event_map = message.source.map
    assert event_map is not None, "called for messages with a map"  # noqa: S101
    body = read_body(message, event_map.format)
    raw: dict[str, Any] = {"specversion": "1.0"}
    for name in ("type", "source", "id", "subject", "time"):
        value: str | None = getattr(event_map, name)
        found = MISSING if value is None else find_value(value, body, message)
        if found is not MISSING and found is not None and found != "":
            raw[name] = _as_text(name, found)
        elif name in ("type", "source"):
            raise InvalidEventError([(f"/{name}", f"the message has nothing at {value}")])
    raw.setdefault("id", message.place)
    data = find_value(event_map.data, body, message)
    if event_map.format is BodyFormat.BYTES and event_map.data == BODY:
        raw["data_base64"] = base64.b64encode(message.body).decode()
        raw["datacontenttype"] = message.content_type or "application/octet-stream"
    elif data is not MISSING:
        raw["data"] = data
        raw["datacontenttype"] = "text/plain" if event_map.format is BodyFormat.TEXT else "application/json"
    return event_from_json(raw)


def read_body(message: BrokerMessage, form: BodyFormat) -> Any:
    """Returns the parsed body; MISSING for bytes. Raises InvalidEventError."""
    if form is BodyFormat.BYTES:
        return MISSING
    try:
        return parse_json(message.body) if form is BodyFormat.JSON else message.body.decode()
    except ValueError as error:
        raise InvalidEventError([("", f"its body is not {form}: {error}")]) from None


def find_value(value: str, body: Any, message: BrokerMessage) -> Any:
    """Returns what a value of a map leads to, or MISSING."""
    if value.startswith(f"{HEADERS}/"):
        name = unescape_pointer(value.removeprefix(f"{HEADERS}/")).lower()
        return next((text for header, text in message.headers.items() if header.lower() == name), MISSING)
    return find_pointer(body, value.removeprefix(BODY)) if value.startswith(BODY) else value


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise InvalidEventError([(f"/{name}", "the message has neither text nor a number for it")])
