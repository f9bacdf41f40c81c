"""A broker's message, and the CloudEvent that it carries."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sevenfold.contracts.config.brokers import ConsumeConfig
from sevenfold.contracts.events.cloudevents import CloudEvent, InvalidEventError, event_from_binary, event_from_json
from sevenfold.contracts.events.event_driven import OutboundRoute
from sevenfold.contracts.json.strict import parse_json
from sevenfold.contracts.messages.maps import MessageFormat

STRUCTURED = "application/cloudevents+json"

# Header prefixes of attributes in the bindings for AMQP (two forms), Kafka and NATS.
_PREFIXES = ("cloudevents:", "cloudevents_", "ce_", "ce-")


@dataclass(frozen=True)
class BrokerMessage:
    """A message that the broker has delivered and that is not acknowledged yet. While it is held, `keep_alive` must
    be called every `keep_alive_seconds` seconds (if it is set), or the broker delivers the message to another
    consumer. `source`: where it was consumed, as configured. `place` identifies the message at the broker, over
    redeliveries where the broker can. `partition_key`: what the broker orders it by, the event's `partitionkey`
    unless it has one. `delivery_count`: how often it was delivered, if the broker counts. `reply_to` and
    `correlation_id`: where the sender expects a reply, if the protocol knows that.
    """

    source: ConsumeConfig
    place: str
    headers: Mapping[str, str]
    content_type: str | None
    body: bytes
    ack: Callable[[], Awaitable[None]]
    keep_alive: Callable[[], Awaitable[None]] | None = None
    keep_alive_seconds: float = 10.0
    partition_key: str | None = None
    delivery_count: int | None = None
    reply_to: str | None = None
    correlation_id: str | None = None

    @property
    def tenant(self) -> str:
        """The tenant of its source."""
        return self.source.tenant


class UnknownBrokerError(Exception):
    """This process's configuration has no broker of that name."""


class UnpublishableError(Exception):
    """The broker will never accept this event. The message states the reason."""


# Messages by source (queue, topic, subject or stream) and partition; the latter is empty without partitions.
Lag = Mapping[tuple[str, str], int]

MessageHandler = Callable[[BrokerMessage], Awaitable[None]]


class Transport(Protocol):
    """One broker's connection. `start` raises if the broker is down or lacks a required object; `stop` gives up held
    messages and may be called in any state.
    """

    async def start(self, on_message: MessageHandler) -> None: ...

    def is_alive(self) -> bool: ...

    async def ping(self) -> bool:
        """Whether the broker answers now. A client that reconnects by itself stays alive meanwhile."""
        ...

    async def read_lag(self) -> Lag:
        """Returns how many messages wait at the broker for this process and those of its group."""
        ...

    async def stop(self) -> None: ...

    async def publish(self, event: CloudEvent, route: OutboundRoute) -> None:
        """Publishes an event. Raises UnpublishableError if no retry can succeed; other exceptions are transient."""
        ...


def parse_event(message: BrokerMessage) -> CloudEvent | None:
    """Parses the event in binary or structured mode; None if the message is no CloudEvent and has a map. Raises
    InvalidEventError.
    """
    attributes = _attributes(message.headers)
    media_type = (message.content_type or "").partition(";")[0].strip().lower()
    if message.source.map is not None and media_type != STRUCTURED and "specversion" not in attributes:
        return None
    # On Kafka and NATS it is a header like any other.
    content_type = attributes.pop("datacontenttype", message.content_type)
    if media_type == STRUCTURED or not attributes:
        try:
            raw = parse_json(message.body)
        except ValueError as error:
            raise InvalidEventError(
                [("", f"it has no CloudEvents attributes, and its body is not JSON: {error}")]
            ) from None
        return event_from_json(raw)
    return event_from_binary(attributes, content_type, message.body)


def with_partition_key(event: CloudEvent, key: str | None) -> CloudEvent:
    """Returns the event with the broker's key as its `partitionkey`, for subscriptions that are ordered by it."""
    if not key or event.attribute("partitionkey") is not None:
        return event
    return event_from_json({**event.model_dump(exclude_none=True), "partitionkey": key})


def headers_as_text(headers: Any) -> dict[str, str]:
    """Converts headers to text; a header that is not text is decoded with replacement characters."""
    found = {}
    for name, value in dict(headers or {}).items():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
        found[str(name)] = text
    return found


def name_headers(attributes: Mapping[str, str], prefix: str, form: MessageFormat) -> dict[str, str]:
    """Returns an event's attributes as headers: with the binding's prefix, in a plain message by their own names."""
    if form is MessageFormat.PLAIN:
        return {name: value for name, value in attributes.items() if name != "specversion"}
    return {f"{prefix}{name}": value for name, value in attributes.items()}


def ordering_key(event: CloudEvent) -> str:
    """Returns the key by which a broker keeps the order of events."""
    return event.attribute("partitionkey") or event.subject or event.attribute("correlationid") or event.id


def find_content_type(headers: Mapping[str, str]) -> str | None:
    """Returns the content type of a message whose broker has it among the headers."""
    return next((value for name, value in headers.items() if name.lower() == "content-type" and value), None)


def event_headers(message: BrokerMessage) -> dict[str, str]:
    """Returns the headers that belong to an event. Other headers may hold secrets, such as tokens."""
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
