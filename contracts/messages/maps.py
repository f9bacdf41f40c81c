"""How messages of brokers that are no CloudEvents are made into events, and events into such messages."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from sevenfold.contracts.sections import ConfigSection

# Parts of a message that a value of a map may refer to.
BODY, HEADERS = "$body", "$headers"


def _check_value(value: str) -> str:
    for part in (BODY, HEADERS):
        if value.startswith(part) and value != part and not value.startswith(f"{part}/"):
            raise ValueError(f"{value} begins like a reference: write {part}/… , or another constant")
    if value == HEADERS:
        raise ValueError("name the header: $headers/…")
    return value


# `$body`, `$body/…` and `$headers/…` are references (JSON Pointers), anything else is a constant.
MapValue = Annotated[str, Field(min_length=1, max_length=1_024), AfterValidator(_check_value)]


class BodyFormat(StrEnum):
    """What a message's body is."""

    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"


class MessageFormat(StrEnum):
    """How an event is sent to a broker. `cloudevents`: in binary mode. `plain`: the same body, and the attributes as
    headers of their own names.
    """

    CLOUDEVENTS = "cloudevents"
    PLAIN = "plain"


class EventMap(ConfigSection):
    """The attributes and data of the event. Without `id`, or where it leads to nothing, the event's id is the
    message's place at the broker, so that a redelivery is a duplicate.
    """

    format: BodyFormat = BodyFormat.JSON
    """what a message's body is: `json`, `text` or `bytes`"""
    type: MapValue
    """the event's type"""
    source: MapValue
    """the event's source"""
    id: MapValue | None = None
    """the event's id; unset: the message's place at the broker, so that a redelivery is a duplicate"""
    subject: MapValue | None = None
    """the event's subject"""
    time: MapValue | None = None
    """the event's time"""
    data: MapValue = BODY
    """the event's data"""
