"""Messages of SQS, and what SNS and EventBridge put around theirs."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sevenfold.adapters.brokers.message import STRUCTURED, find_content_type
from sevenfold.contracts.events.eventbridge import EventBridgeEvent
from sevenfold.contracts.json.strict import parse_json

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageAttributeValueOutputTypeDef, MessageTypeDef

# It may become an event's id.
_MAX_PLACE_CHARACTERS = 200


@dataclass(frozen=True)
class Content:
    """What a message holds once its envelopes are opened. `place` identifies it at the queue or topic."""

    place: str
    headers: Mapping[str, str]
    content_type: str | None
    body: bytes


def open_message(raw: "MessageTypeDef", queue: str, *, dedup_by_group: bool) -> Content:
    """Returns the content of a message, without the envelopes of SNS and EventBridge."""
    attributes = {name: _as_text(value) for name, value in raw.get("MessageAttributes", {}).items()}
    place = _find_place(raw, queue, dedup_by_group=dedup_by_group)
    return open_envelopes(
        Content(place, attributes, find_content_type(attributes), raw["Body"].encode(errors="replace"))
    )


def open_envelopes(content: Content) -> Content:
    """Returns what a notification of SNS contains, and an event of EventBridge as a CloudEvent in structured mode;
    anything else unchanged.
    """
    if (notification := _parse_object(content, {"Type", "TopicArn", "Message", "MessageId"})) is not None:
        content = _open_notification(content, notification)
    if (event := _parse_object(content, {"detail-type", "source", "id", "detail"})) is not None:
        content = _open_event(content, event)
    return content


def _as_text(attribute: "MessageAttributeValueOutputTypeDef") -> str:
    if "StringValue" in attribute:
        return attribute["StringValue"]
    return base64.b64encode(attribute.get("BinaryValue", b"")).decode()


def _find_place(raw: "MessageTypeDef", queue: str, *, dedup_by_group: bool) -> str:
    """Returns the deduplication id that the sender chose, otherwise the message id.

    With deduplication by content the id is a hash of the body: two equal messages on two days are two messages.
    """
    system = raw.get("Attributes", {})
    dedup_id = system.get("MessageDeduplicationId")
    if not dedup_id or dedup_id == hashlib.sha256(raw["Body"].encode(errors="replace")).hexdigest():
        return f"{queue}-{raw['MessageId']}"
    place = f"{system.get('MessageGroupId')} {dedup_id}" if dedup_by_group else dedup_id  # Neither has a space.
    return place if len(place) <= _MAX_PLACE_CHARACTERS else hashlib.sha256(place.encode()).hexdigest()


def _parse_object(content: Content, members: set[str]) -> dict[str, Any] | None:
    """Returns the body if it is a JSON object with these members. A CloudEvent is none of the envelopes."""
    if content.content_type == STRUCTURED or not content.body.lstrip().startswith(b"{"):
        return None
    try:
        found = parse_json(content.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and members <= found.keys() and "specversion" not in found else None


def _open_notification(content: Content, notification: dict[str, Any]) -> Content:
    text, identity = notification["Message"], notification["MessageId"]
    if notification["Type"] != "Notification" or not isinstance(text, str) or not isinstance(identity, str):
        return content
    headers = {"TopicArn": str(notification["TopicArn"])}
    if isinstance(subject := notification.get("Subject"), str):
        headers["Subject"] = subject
    attributes = notification.get("MessageAttributes")
    for name, value in attributes.items() if isinstance(attributes, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("Value"), str):
            headers[name] = value["Value"]
    return Content(identity, headers, find_content_type(headers), text.encode(errors="replace"))


def _open_event(content: Content, raw: dict[str, Any]) -> Content:
    try:
        event = EventBridgeEvent.model_validate(raw)
    except ValidationError:
        return content
    body = json.dumps(event.to_cloud_event()).encode()
    # EventBridge delivers at least once, each time as another message.
    place = f"{event.source} {event.id}"
    return replace(content, place=place, headers={}, content_type=STRUCTURED, body=body)
