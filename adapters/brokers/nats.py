"""NATS JetStream transport."""

import asyncio
from typing import Any
from urllib.parse import quote, unquote

import nats
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.annotations import NatsMessage
from nats.aio.client import Client
from nats.errors import BadSubjectError, MaxPayloadError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from sevenfold.adapters.brokers.faststream_common import CONSUMING, PING_SECONDS
from sevenfold.adapters.brokers.message import (
    BrokerMessage,
    Lag,
    MessageHandler,
    UnpublishableError,
    find_content_type,
    headers_as_text,
    name_headers,
)
from sevenfold.contracts.config.brokers import ConsumeConfig
from sevenfold.contracts.events.cloudevents import CloudEvent, to_binary_mode
from sevenfold.contracts.events.event_driven import OutboundRoute
from sevenfold.contracts.messages.maps import MessageFormat

# NATS delivers a message to another consumer after this time, unless its deadline is extended.
_ACK_SECONDS = 30.0

# How long a pull waits for messages.
_PULL_SECONDS = 5.0

_PUBLISH_SECONDS = 10.0
_RECONNECT_SECONDS = 1

_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class NatsTransport:
    """A durable consumer per subject, and a connection that publishes and finds streams."""

    def __init__(self, url: str, consume: list[ConsumeConfig]) -> None:
        self._url = url
        self._consume = consume
        self._broker: NatsBroker | None = None
        self._client: Client | None = None
        self._streams: dict[str, str] = {}
        self._is_consumer_missing = False

    async def start(self, on_message: MessageHandler) -> None:
        """Connects. A subject without a stream gets its own file-based stream."""
        self._streams, self._is_consumer_missing = {}, False
        reconnecting: dict[str, Any] = {"max_reconnect_attempts": -1, "reconnect_time_wait": _RECONNECT_SECONDS}
        self._client = await nats.connect(self._url, **reconnecting)
        streams = [await self._find_stream(one.source) for one in self._consume]
        self._broker = NatsBroker(self._url, **reconnecting, **CONSUMING)
        for one, stream in zip(self._consume, streams, strict=True):
            self._subscribe(self._broker, one, stream, on_message)
        await self._broker.start()

    def _subscribe(self, broker: NatsBroker, one: ConsumeConfig, stream: str, on_message: MessageHandler) -> None:
        config = ConsumerConfig(
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_ACK_SECONDS,
            max_deliver=-1,
            # Messages buffered in the client would not have their deadlines extended.
            max_ack_pending=one.concurrency,
            deliver_policy=DeliverPolicy.ALL,
        )

        async def handle(message: NatsMessage) -> None:
            headers = {name: unquote(value) for name, value in headers_as_text(message.headers).items()}
            await on_message(
                BrokerMessage(
                    source=one,
                    place=f"{stream}-{message.raw_message.metadata.sequence.stream}",
                    headers=headers,
                    content_type=find_content_type(headers),
                    body=message.body,
                    ack=message.ack,
                    keep_alive=message.in_progress,
                    keep_alive_seconds=_ACK_SECONDS / 3,
                )
            )

        broker.subscriber(
            one.source,
            stream=JStream(stream, declare=False),
            durable=_durable_name(one),  # All processes share it.
            pull_sub=PullSub(batch_size=one.concurrency, timeout=_PULL_SECONDS),
            config=config,
            no_reply=True,
            max_workers=one.concurrency,
        )(handle)

    def is_alive(self) -> bool:
        """The client reconnects by itself, but receives nothing from a consumer that was deleted."""
        return self._broker is not None and not self._is_consumer_missing

    async def read_lag(self) -> Lag:
        """Returns the messages that each durable consumer has still to deliver."""
        found = {}
        for one in self._consume:
            info = await self._jetstream().consumer_info(await self._find_stream(one.source), _durable_name(one))
            found[one.source, ""] = info.num_pending or 0
        return found

    async def ping(self) -> bool:
        """Whether the broker answers now."""
        if self._broker is None or not await self._broker.ping(PING_SECONDS):
            return False
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self.read_lag()
        except NotFoundError:
            self._is_consumer_missing = True
        return not self._is_consumer_missing

    async def stop(self) -> None:
        """Closes both connections."""
        broker, client = self._broker, self._client
        self._broker = self._client = None
        if broker is not None:
            await broker.stop()
        if client is not None:
            await client.close()

    async def publish(self, event: CloudEvent, route: OutboundRoute) -> None:
        """Publishes an event. JetStream drops duplicates of an id within its window. Raises UnpublishableError."""
        to, form = route.to, route.format
        attributes, content_type, body = to_binary_mode(event)
        if content_type:
            attributes["content-type" if form is MessageFormat.PLAIN else "datacontenttype"] = content_type
        headers = {name: _encode_header(value) for name, value in name_headers(attributes, "ce-", form).items()}
        if route.is_sender_chosen:
            await self._send(to, body, headers)
            return
        stream = await self._find_stream(to)
        headers["Nats-Msg-Id"] = _encode_header(f"{event.source} {event.id}")
        try:
            await self._jetstream().publish(to, body, timeout=_PUBLISH_SECONDS, stream=stream, headers=headers)
        except (MaxPayloadError, BadSubjectError) as error:
            raise UnpublishableError(f"NATS rejects the event: {error}") from error

    async def _send(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Sends a reply as clients of NATS expect it: to whoever listens now, without a stream."""
        assert self._client is not None, "used between start and stop"  # noqa: S101
        if not subject.isprintable() or any(character in subject for character in " *>"):
            raise UnpublishableError(f"NATS has no subject {subject}.")
        try:
            await self._client.publish(subject, body, headers=headers)
        except (MaxPayloadError, BadSubjectError) as error:
            raise UnpublishableError(f"NATS rejects the event: {error}") from error

    async def _find_stream(self, subject: str) -> str:
        known = self._streams.get(subject)
        if known is not None:
            return known
        try:
            name = str(await self._jetstream().find_stream_name_by_subject(subject))
        except NotFoundError:
            name = _sanitize_name(f"sevenfold-{subject}")
            await self._jetstream().add_stream(StreamConfig(name=name, subjects=[subject], storage=StorageType.FILE))
        self._streams[subject] = name
        return name

    def _jetstream(self) -> JetStreamContext:
        assert self._client is not None, "used between start and stop"  # noqa: S101
        return self._client.jetstream()


def _durable_name(one: ConsumeConfig) -> str:
    return _sanitize_name(f"{one.group}-{one.source}")


def _encode_header(value: str) -> str:
    """Encodes a header as the bindings for NATS and HTTP require."""
    return quote(value, safe=_PRINTABLE)


def _sanitize_name(text: str) -> str:
    """Replaces characters that names of streams and consumers must not have."""
    return "".join(c if c.isalnum() else "-" for c in text)
