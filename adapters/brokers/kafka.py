"""Kafka."""

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
)
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from faststream.kafka.message import KafkaAckableMessage

from sevenfold.adapters.brokers.faststream_common import CONSUMING, GRACE_SECONDS, headers_as_text
from sevenfold.adapters.brokers.message import Message, MessageHandler, UnpublishableError
from sevenfold.contracts.cloudevents import CloudEvent, to_binary_mode
from sevenfold.contracts.config import ConsumeConfig

# Events may be held for hours while Temporal is away. That a process lives, its heartbeats tell.
_MAX_POLL_INTERVAL_MILLISECONDS = 86_400_000


class KafkaTransport:
    """One consumer for each topic, and an idempotent producer. Topics have to be there."""

    def __init__(self, url: str, consume: list[ConsumeConfig]) -> None:
        self._url = url
        self._consume = consume
        self._broker: KafkaBroker | None = None
        self._trackers: list[_OffsetTracker] = []

    async def start(self, on_message: MessageHandler) -> None:
        """Raises while no broker of the cluster answers."""
        self._trackers = []
        self._broker = KafkaBroker(
            self._url.removeprefix("kafka://"),
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
            await tracker.handle(message, on_message)

        subscriber = broker.subscriber(
            one.source,
            group_id=one.group,
            auto_offset_reset="earliest",
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MILLISECONDS,
            no_reply=True,
            parser=_parser(lambda: subscriber),
        )
        subscriber(handle)

    def is_alive(self) -> bool:
        """The client connects again by itself."""
        return self._broker is not None

    async def stop(self) -> None:
        """Gives up what is in work, then ends the connection."""
        broker, self._broker = self._broker, None
        for tracker in self._trackers:
            await tracker.close()
        if broker is not None:
            await asyncio.wait_for(broker.stop(), GRACE_SECONDS + 10)

    async def publish(self, event: CloudEvent, to: str) -> None:
        """Events of one `partitionkey`, subject or correlation keep their order."""
        assert self._broker is not None, "publishing begins when it is up"  # noqa: S101
        attributes, content_type, body = to_binary_mode(event)
        headers = {f"ce_{name}": value for name, value in attributes.items()}
        headers |= {"content-type": content_type} if content_type else {}
        key = event.attribute("partitionkey") or event.subject or event.attribute("correlationid") or event.id
        try:
            await self._broker.publish(body, to, key=key.encode(), headers=headers)
        except (MessageSizeTooLargeError, InvalidTopicError, TopicAuthorizationFailedError) as error:
            raise UnpublishableError(f"Kafka does not take it: {error}") from error


class _OffsetTracker:
    """The messages of a consumer that are in work. What is committed is what has been done without a gap: Kafka knows
    only how far a consumer is, and whatever lies before that is never brought again.
    """

    def __init__(self, concurrency: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._pending: dict[TopicPartition, dict[int, bool]] = defaultdict(dict)
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, message: Any, on_message: MessageHandler) -> None:
        """Returns when there is room for another one."""
        await self._slots.acquire()
        record = message.raw_message
        partition = TopicPartition(record.topic, record.partition)
        self._pending[partition][record.offset] = False
        task = asyncio.create_task(self._process(message, on_message, partition, record.offset))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _process(
        self, message: Any, on_message: MessageHandler, partition: TopicPartition, offset: int
    ) -> None:
        async def acknowledge() -> None:
            await self._commit(message.consumer, partition, offset)

        headers = headers_as_text(message.headers)
        content_type = headers.get("content-type") or None
        try:
            await on_message(Message(headers=headers, content_type=content_type, body=message.body, ack=acknowledge))
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
                # The partition is another's now, who will find each event accepted.
                self._pending.pop(partition, None)

    async def close(self) -> None:
        """Gives up what is in work; it comes again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _parser(subscriber: Callable[[], Any]) -> Callable[[Any], Any]:
    """Reads a record whatever its headers are: FastStream's own reader skips one with a header that is no text."""

    async def parsed(record: Any) -> KafkaAckableMessage:
        return KafkaAckableMessage(
            raw_message=record,
            body=record.value or b"",
            headers=headers_as_text(record.headers),
            message_id=f"{record.topic}/{record.partition}/{record.offset}",
            consumer=getattr(record, "consumer", None) or subscriber().consumer,
        )

    return parsed
