"""Kafka transport."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import (
    ConsumerStoppedError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.metadata import MetadataRequest

from sevenfold.adapters.brokers.kafka.offsets import OffsetTracker
from sevenfold.adapters.brokers.kafka.records import read_record
from sevenfold.adapters.brokers.message import Lag, MessageHandler, UnpublishableError, name_headers, ordering_key
from sevenfold.contracts.config.brokers import ConsumeConfig
from sevenfold.contracts.events.cloudevents import CloudEvent, to_binary_mode
from sevenfold.contracts.events.event_driven import OutboundRoute

log = structlog.get_logger(__name__)

# Events may be held for hours while Temporal is down. The consumer's heartbeats prove that the process lives.
_MAX_POLL_INTERVAL_MILLISECONDS = 86_400_000

_PING_SECONDS = 2.0
_STOP_SECONDS = 10.0

# After an error of Kafka that the client does not retry.
_PAUSE_SECONDS = 5.0


class KafkaTransport:
    """One consumer per topic, and an idempotent producer. Topics must exist. `security`: aiokafka's options for TLS
    and SASL.
    """

    def __init__(self, url: str, consume: list[ConsumeConfig], security: Mapping[str, object]) -> None:
        self._options: dict[str, Any] = {"bootstrap_servers": url.removeprefix("kafka://").rstrip("/"), **security}
        self._consume = consume
        self._resources: AsyncExitStack | None = None
        self._producer: AIOKafkaProducer | None = None
        self._consumers: list[AIOKafkaConsumer] = []
        self._consuming: list[asyncio.Task[None]] = []

    async def start(self, on_message: MessageHandler) -> None:
        """Connects and joins the groups. Raises while no broker of the cluster answers."""
        async with AsyncExitStack() as opening:
            producer = AIOKafkaProducer(acks="all", enable_idempotence=True, **self._options)
            opening.push_async_callback(producer.stop)
            await producer.start()
            trackers = [OffsetTracker(one.concurrency) for one in self._consume]
            consumers = [self._consumer(one) for one in self._consume]
            for one, consumer, tracker in zip(self._consume, consumers, trackers, strict=True):
                consumer.subscribe([one.source], listener=tracker)
                opening.push_async_callback(consumer.stop)
                opening.push_async_callback(tracker.close)
            # Side by side: each join may have to wait for the whole group.
            await asyncio.gather(*(consumer.start() for consumer in consumers))
            self._resources = opening.pop_all()
        self._producer, self._consumers = producer, consumers
        for one, consumer, tracker in zip(self._consume, consumers, trackers, strict=True):
            if not consumer.partitions_for_topic(one.source):
                log.warning("there is no such topic of Kafka yet, or it may not be read", topic=one.source)
            consuming = _consume_records(consumer, tracker, one, on_message)
            self._consuming.append(asyncio.create_task(consuming, name=f"consumes {one.source}"))

    def _consumer(self, one: ConsumeConfig) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            group_id=one.group,
            auto_offset_reset=one.auto_offset_reset or "earliest",
            enable_auto_commit=False,
            # Records of a transaction count once it is committed.
            isolation_level="read_committed",
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MILLISECONDS,
            **self._options,
        )

    async def read_lag(self) -> Lag:
        """Returns the messages behind the committed positions of the partitions that this process has."""
        found: dict[tuple[str, str], int] = {}
        for consumer in self._consumers:
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
        """The client reconnects by itself; a consumer ends only by a fault that it cannot handle."""
        for task in self._consuming:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                log.warning("consuming from Kafka ended", error=f"{type(error).__name__}: {error}")
        return self._producer is not None and not any(task.done() for task in self._consuming)

    async def ping(self) -> bool:
        """Whether a broker of the cluster answers now."""
        if self._producer is None:
            return False
        client = self._producer.client
        async with asyncio.timeout(_PING_SECONDS):
            await client.send(client.get_random_node(), MetadataRequest([]))
        return True

    async def stop(self) -> None:
        """Cancels the messages in flight, commits what is done, leaves the groups and closes the connections."""
        consuming, self._consuming = self._consuming, []
        for task in consuming:
            task.cancel()
        await asyncio.gather(*consuming, return_exceptions=True)
        resources, self._resources = self._resources, None
        self._producer, self._consumers = None, []
        if resources is not None:
            await asyncio.wait_for(resources.aclose(), _STOP_SECONDS)

    async def publish(self, event: CloudEvent, route: OutboundRoute) -> None:
        """Publishes an event. Events with the same `partitionkey`, subject or correlation keep their order. Raises
        UnpublishableError.
        """
        assert self._producer is not None, "publish is called after start"  # noqa: S101
        attributes, content_type, body = to_binary_mode(event)
        named = name_headers(attributes, "ce_", route.format) | (
            {"content-type": content_type} if content_type else {}
        )
        headers = [(name, value.encode()) for name, value in named.items()]
        try:
            await self._producer.send_and_wait(route.to, body, key=ordering_key(event).encode(), headers=headers)
        except (MessageSizeTooLargeError, InvalidTopicError, TopicAuthorizationFailedError) as error:
            raise UnpublishableError(f"Kafka rejects the event: {error}") from error
        except UnknownTopicOrPartitionError as error:
            if not route.is_sender_chosen:
                raise
            raise UnpublishableError(f"Kafka has no topic {route.to}.") from error


async def _consume_records(
    consumer: AIOKafkaConsumer, tracker: OffsetTracker, source: ConsumeConfig, on_message: MessageHandler
) -> None:
    while True:
        try:
            record = await consumer.getone()
        except ConsumerStoppedError:
            return
        except KafkaError as error:
            # Such as a topic that may not be read, or a codec without its library.
            log.warning("reading from Kafka failed, retrying", topic=source.source, error=f"{error!r}")
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        await tracker.handle(consumer, record, partial(_process, on_message, record, source))


def _process(
    on_message: MessageHandler, record: Any, source: ConsumeConfig, ack: Callable[[], Awaitable[None]]
) -> Awaitable[None]:
    return on_message(read_record(record, source, ack))
