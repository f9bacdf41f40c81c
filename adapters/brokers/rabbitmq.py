"""RabbitMQ transport."""

import hashlib
from typing import Any
from uuid import uuid4

from aiormq.exceptions import ChannelPreconditionFailed, PublishError
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage

from sevenfold.adapters.brokers.faststream_common import CONSUMING, GRACE_SECONDS, PING_SECONDS
from sevenfold.adapters.brokers.message import (
    BrokerMessage,
    Lag,
    MessageHandler,
    UnpublishableError,
    headers_as_text,
    name_headers,
)
from sevenfold.contracts.config.brokers import ConsumeConfig
from sevenfold.contracts.events.cloudevents import CloudEvent, to_binary_mode
from sevenfold.contracts.events.event_driven import OutboundRoute
from sevenfold.contracts.runs.message_runs import OUTCOME_ATTRIBUTE

_PUBLISH_SECONDS = 10.0
_RECONNECT_SECONDS = 0.5
_MAX_ID_BYTES = 255


class RabbitTransport:
    """A consumer per queue, and a separate connection that publishes: on a consuming channel an unroutable message
    would count as confirmed.
    """

    def __init__(self, url: str, consume: list[ConsumeConfig]) -> None:
        self._url = url
        self._consume = consume
        self._consuming: RabbitBroker | None = None
        self._publishing: RabbitBroker | None = None
        # Existing queues whose settings differ from ours.
        self._existing_queues: set[str] = set()

    async def start(self, on_message: MessageHandler) -> None:
        """Connects. A missing queue is created, durable and replicated."""
        self._publishing = RabbitBroker(
            self._url,
            default_channel=Channel(publisher_confirms=True, on_return_raises=True),
            graceful_timeout=GRACE_SECONDS,
            reconnect_interval=_RECONNECT_SECONDS,
            logger=None,
        )
        await self._publishing.start()
        self._consuming = RabbitBroker(self._url, reconnect_interval=_RECONNECT_SECONDS, **CONSUMING)
        for one in self._consume:
            await self._check_queue(one.source)
            self._subscribe(self._consuming, one, on_message)
        await self._consuming.start()

    async def _check_queue(self, name: str) -> None:
        probe = RabbitBroker(self._url, logger=None)
        try:
            await probe.start()
            await probe.declare_queue(_queue(name, found=False))
        except ChannelPreconditionFailed:
            self._existing_queues.add(name)
        finally:
            await probe.stop()

    def _subscribe(self, broker: RabbitBroker, one: ConsumeConfig, on_message: MessageHandler) -> None:
        async def handle(message: RabbitMessage) -> None:
            raw = message.raw_message
            await on_message(
                BrokerMessage(
                    source=one,
                    # A delivery tag begins again with each connection: with it, a new message could pass for a
                    # duplicate and be lost. So a redelivery without a message id is a new event.
                    place=f"{one.source}-{raw.message_id or uuid4().hex}",
                    headers=headers_as_text(raw.headers),
                    content_type=raw.content_type,
                    body=message.body,
                    ack=message.ack,
                    reply_to=raw.reply_to,
                    correlation_id=raw.correlation_id,
                )
            )

        queue = _queue(one.source, found=one.source in self._existing_queues)
        channel = Channel(prefetch_count=one.concurrency)
        broker.subscriber(queue, channel=channel, no_reply=True)(handle)

    async def read_lag(self) -> Lag:
        """Returns the messages of each queue that no consumer holds."""
        if self._publishing is None:
            return {}
        # A channel of its own: FastStream's remembers the first declaration, with the count of then.
        connection = await self._publishing.connect()
        async with connection.channel() as channel:
            queues = [await channel.declare_queue(one.source, passive=True) for one in self._consume]
        return {(queue.name, ""): queue.declaration_result.message_count or 0 for queue in queues}

    def is_alive(self) -> bool:
        """The client reconnects by itself."""
        return self._consuming is not None

    async def ping(self) -> bool:
        """Whether the broker answers now."""
        return self._consuming is not None and await self._consuming.ping(PING_SECONDS)

    async def stop(self) -> None:
        """Closes both connections."""
        brokers = (self._consuming, self._publishing)
        self._consuming = self._publishing = None
        for broker in brokers:
            if broker is not None:
                await broker.stop()

    async def publish(self, event: CloudEvent, route: OutboundRoute) -> None:
        """Publishes an event. `to` is a queue, or `exchange/routing key`. Raises if no queue would get it, and
        UnpublishableError if no retry can succeed.
        """
        to, form = route.to, route.format
        assert self._publishing is not None, "publish is called after start"  # noqa: S101
        exchange, slash, key = to.partition("/")
        if route.is_sender_chosen:  # A queue, whatever characters its name has.
            exchange, slash, key = "", "", to
        attributes, content_type, body = to_binary_mode(event)
        try:
            await self._publishing.publish(
                body,
                routing_key=key if slash else to,
                exchange=exchange if slash else None,
                persist=True,
                mandatory=True,
                message_id=_message_id(event),
                correlation_id=_short(event.attribute("correlationid")),
                # Clients of remote procedures distinguish results and errors by it.
                message_type=_short(event.attribute(OUTCOME_ATTRIBUTE) or event.type),
                headers=dict[str, Any](name_headers(attributes, "cloudEvents_", form)),
                content_type=content_type or "application/octet-stream",
                timeout=_PUBLISH_SECONDS,
            )
        except ChannelPreconditionFailed as error:  # The event is larger than max_message_size.
            raise UnpublishableError(f"RabbitMQ rejects the event: {error}") from error
        except PublishError as error:  # It came back: no queue gets it.
            if not route.is_sender_chosen:
                raise
            raise UnpublishableError(f"The client that expects the reply has gone: no queue {to}.") from error


def _short(text: str | None) -> str | None:
    """Returns the text if AMQP takes it as a property; the headers have every attribute anyway."""
    return text if text is not None and len(text.encode()) <= _MAX_ID_BYTES else None


def _message_id(event: CloudEvent) -> str:
    """Returns the message id: AMQP limits it to 255 bytes, so a longer one is truncated and gets a hash."""
    whole = f"{event.source} {event.id}"
    if len(whole.encode()) <= _MAX_ID_BYTES:
        return whole
    return f"{whole.encode()[:150].decode(errors='ignore')}~{hashlib.sha256(whole.encode()).hexdigest()}"


def _queue(name: str, *, found: bool) -> RabbitQueue:
    if found:
        return RabbitQueue(name, declare=False)
    return RabbitQueue(name, queue_type=QueueType.QUORUM, durable=True)
