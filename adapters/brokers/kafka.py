"""Kafka transport."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from faststream.kafka.message import KafkaAckableMessage

from sevenfold.adapters.brokers.faststream_common import CONSUMING, GRACE_SECONDS, PING_SECONDS, headers_as_text
from sevenfold.adapters.brokers.message import (
    Lag,
    Message,
    MessageHandler,
    UnpublishableError,
    name_headers,
    ordering_key,
)
from sevenfold.contracts.cloudevents import CloudEvent, to_binary_mode
from sevenfold.contracts.config import ConsumeConfig
from sevenfold.contracts.events import OutboundRoute

# Events may be held for hours while Temporal is down. The consumer's heartbeats prove that the process lives.
_MAX_POLL_INTERVAL_MILLISECONDS = 86_400_000

# Of a key that becomes an event's `partitionkey`.
_MAX_KEY_CHARACTERS = 256


class KafkaTransport:
    """One consumer per topic, and an idempotent producer. Topics must exist."""

    def __init__(self, url: str, consume: list[ConsumeConfig]) -> None:
        self._url = url
        self._consume = consume
        self._broker: KafkaBroker | None = None
        self._trackers: list[_OffsetTracker] = []
        self._subscribers: list[Any] = []

    async def start(self, on_message: MessageHandler) -> None:
        """Connects. Raises while no broker of the cluster answers."""
        self._trackers, self._subscribers = [], []
        self._broker = KafkaBroker(
            self._url.removeprefix("kafka://").rstrip("/"),
            allow_auto_create_topics=False,
            acks="all",
            enable_idempotence=True,
            **CONSUMING,
        )
        for one in self._consume:
            self._subscribe(self._broker, one, on_message)
        await self._broker.start()

    def _subscribe(self, broker: KafkaBroker, one: ConsumeConfig, on_message: MessageHandler) -> None:
        tracker = _OffsetTracker(one.concurrency)
        self._trackers.append(tracker)

        async def handle(message: KafkaMessage) -> None:
            await tracker.handle(message, one, on_message)

        subscriber = broker.subscriber(
            one.source,
            group_id=one.group,
            auto_offset_reset="earliest",
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MILLISECONDS,
            no_reply=True,
            parser=_parser(lambda: subscriber),
        )
        subscriber(handle)
        self._subscribers.append(subscriber)

    async def read_lag(self) -> Lag:
        """Returns the messages behind the committed positions of the partitions that this process has."""
        found: dict[tuple[str, str], int] = {}
        for subscriber in self._subscribers:
            consumer = subscriber.consumer
            if consumer is None:
                continue
            partitions = list(consumer.assignment())
            ends, starts, *committed = await asyncio.gather(
                consumer.end_offsets(partitions),
                consumer.beginning_offsets(partitions),
                *map(consumer.committed, partitions),
            )
            for partition, position in zip(partitions, committed, strict=True):
                reached = starts[partition] if position is None else position
                found[partition.topic, str(partition.partition)] = max(0, ends[partition] - reached)
        return found

    def is_alive(self) -> bool:
        """The client reconnects by itself."""
        return self._broker is not None

    async def ping(self) -> bool:
        """Whether the broker answers now."""
        return self._broker is not None and await self._broker.ping(PING_SECONDS)

    async def stop(self) -> None:
        """Cancels the messages in flight, then closes the connection."""
        broker, self._broker = self._broker, None
        for tracker in self._trackers:
            await tracker.close()
        if broker is not None:
            await asyncio.wait_for(broker.stop(), GRACE_SECONDS + 10)

    async def publish(self, event: CloudEvent, route: OutboundRoute) -> None:
        """Publishes an event. Events with the same `partitionkey`, subject or correlation keep their order. Raises
        UnpublishableError.
        """
        to, form = route.to, route.format
        assert self._broker is not None, "publish is called after start"  # noqa: S101
        attributes, content_type, body = to_binary_mode(event)
        headers = name_headers(attributes, "ce_", form)
        headers |= {"content-type": content_type} if content_type else {}
        try:
            await self._broker.publish(body, to, key=ordering_key(event).encode(), headers=headers)
        except (MessageSizeTooLargeError, InvalidTopicError, TopicAuthorizationFailedError) as error:
            raise UnpublishableError(f"Kafka rejects the event: {error}") from error
        except UnknownTopicOrPartitionError as error:
            if not route.is_sender_chosen:
                raise
            raise UnpublishableError(f"Kafka has no topic {to}.") from error


class _OffsetTracker:
    """The messages of a consumer in flight. Only offsets without a gap are committed: Kafka stores one position per
    partition and never delivers earlier messages again.
    """

    def __init__(self, concurrency: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._pending: dict[TopicPartition, dict[int, bool]] = defaultdict(dict)
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, message: Any, one: ConsumeConfig, on_message: MessageHandler) -> None:
        """Starts handling a message; returns when a slot is free."""
        await self._slots.acquire()
        record = message.raw_message
        partition = TopicPartition(record.topic, record.partition)
        self._pending[partition][record.offset] = False
        task = asyncio.create_task(self._process(message, one, on_message, partition, record.offset))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _process(
        self, message: Any, one: ConsumeConfig, on_message: MessageHandler, partition: TopicPartition, offset: int
    ) -> None:
        async def acknowledge() -> None:
            await self._commit(message.consumer, partition, offset)

        headers = headers_as_text(message.headers)
        content_type = headers.get("content-type") or None
        try:
            await on_message(
                Message(
                    source=one,
                    place=f"{partition.topic}-{partition.partition}-{offset}",
                    headers=headers,
                    content_type=content_type,
                    body=message.body,
                    ack=acknowledge,
                    partition_key=_read_key(message.raw_message.key),
                )
            )
        finally:
            self._slots.release()

    async def _commit(self, consumer: Any, partition: TopicPartition, offset: int) -> None:
        offsets = self._pending[partition]
        offsets[offset] = True
        reached = None
        for one in sorted(offsets):
            if not offsets[one]:
                break
            reached = one
            del offsets[one]
        if reached is not None:
            try:
                await consumer.commit({partition: reached + 1})
            except KafkaError:
                # The partition is assigned to another consumer, for which each event is a duplicate.
                self._pending.pop(partition, None)

    async def close(self) -> None:
        """Cancels the messages in flight; Kafka delivers them again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _read_key(key: bytes | None) -> str | None:
    """Returns the record's key if an event can have it as an attribute: short text."""
    text = (key or b"").decode("utf-8", "replace")
    return text if text.isprintable() and "\ufffd" not in text and len(text) <= _MAX_KEY_CHARACTERS else None


def _parser(subscriber: Callable[[], Any]) -> Callable[[Any], Any]:
    """Parses a record with any headers: FastStream's own parser skips records with binary headers."""

    async def parsed(record: Any) -> KafkaAckableMessage:
        return KafkaAckableMessage(
            raw_message=record,
            body=record.value or b"",
            headers=headers_as_text(record.headers),
            message_id=f"{record.topic}/{record.partition}/{record.offset}",
            consumer=getattr(record, "consumer", None) or subscriber().consumer,
        )

    return parsed
