"""What a broker brought, whichever it is, and the CloudEvent in it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sevenfold.contracts.cloudevents import CloudEvent, InvalidEventError, event_from_binary, event_from_json
from sevenfold.contracts.strict_json import parse_json

STRUCTURED = "application/cloudevents+json"

# As the bindings for AMQP (two forms), Kafka and NATS write attributes into headers.
_PREFIXES = ("cloudevents:", "cloudevents_", "ce_", "ce-")


@dataclass(frozen=True)
class Message:
    """A message that is ours until it is acknowledged. `keep_alive`, where there is one, has to be called every
    `keep_alive_seconds` while it is held, or the broker gives it to somebody else.
    """

    headers: Mapping[str, str]
    content_type: str | None
    body: bytes
    ack: Callable[[], Awaitable[None]]
    keep_alive: Callable[[], Awaitable[None]] | None = None
    keep_alive_seconds: float = 10.0


class UnknownBrokerError(Exception):
    """This process has no broker of that name in its configuration."""


class UnpublishableError(Exception):
    """The broker will never take this event, however often it is tried. The message says why."""


MessageHandler = Callable[[Message], Awaitable[None]]


class Transport(Protocol):
    """One broker's connection. `start` raises when the broker is away, or does not have what it should; `stop` gives
    up what is held, and may be called in any state.
    """

    async def start(self, on_message: MessageHandler) -> None: ...

    def is_alive(self) -> bool: ...

    async def stop(self) -> None: ...

    async def publish(self, event: CloudEvent, to: str) -> None:
        """Raises UnpublishableError for what will never succeed; anything else may pass."""
        ...


def parse_event(message: Message) -> CloudEvent:
    """The event in binary or structured mode. Raises InvalidEventError."""
    attributes = _attributes(message.headers)
    # a header like any other on Kafka and NATS
    content_type = attributes.pop("datacontenttype", message.content_type)
    media_type = (message.content_type or "").partition(";")[0].strip().lower()
    if media_type == STRUCTURED or not attributes:
        try:
            raw = parse_json(message.body)
        except ValueError as error:
            raise InvalidEventError(
                [("", f"it has no CloudEvents attributes, and its body is no JSON: {error}")]
            ) from None
        return event_from_json(raw)
    return event_from_binary(attributes, content_type, message.body)


def event_headers(message: Message) -> dict[str, str]:
    """Those of its headers that belong to an event. Others may hold what is nobody's business, such as tokens."""
    known = (*_PREFIXES, "content-type")
    return {name: value for name, value in message.headers.items() if name.lower().startswith(known)}


def _attributes(headers: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in headers.items():
        lowered = name.lower()
        for prefix in _PREFIXES:
            if lowered.startswith(prefix):
                found[lowered.removeprefix(prefix)] = value
    return found
