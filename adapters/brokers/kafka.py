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

from adapters.brokers.faststream_parts import CONSUMING, GRACE_SECONDS, in_text
from adapters.brokers.message import Message, Take, UnpublishableError
from contracts.cloudevents import CloudEvent, binary_of
from contracts.config import ConsumeConfig

# Events may be held for hours while Temporal is away. That a process lives, its heartbeats tell.
_LONGEST_HOLD_MILLISECONDS = 86_400_000


class KafkaTransport:
    """One consumer for each topic, and an idempotent producer. Topics have to be there."""

    def __init__(self, url: str, consume: list[ConsumeConfig]) -> None:
        self._url = url
        self._consume = consume
        self._broker: KafkaBroker | None = None
        self._windows: list[_Window] = []

    async def start(self, take: Take) -> None:
        """Raises while no broker of the cluster answers."""
        self._windows = []
        self._broker = KafkaBroker(
            self._url.removeprefix("kafka://"),
            allow_auto_create_topics=False,
            acks="all",
            enable_idempotence=True,
            **CONSUMING,
        )
        for one in self._consume:
            self._subscribe(self._broker, one, take)
        await self._broker.start()

    def _subscribe(self, broker: KafkaBroker, one: ConsumeConfig, take: Take) -> None:
        window = _Window(one.concurrency)
        self._windows.append(window)

        async def taken(message: KafkaMessage) -> None:
            await window.put(message, take)

        subscriber = broker.subscriber(
            one.source,
            group_id=one.group,
            auto_offset_reset="earliest",
            max_poll_interval_ms=_LONGEST_HOLD_MILLISECONDS,
            no_reply=True,
            parser=_parser(lambda: subscriber),
        )
        subscriber(taken)

    def alive(self) -> bool:
        """The client connects again by itself."""
        return self._broker is not None

    async def stop(self) -> None:
        """Gives up what is in work, then ends the connection."""
        broker, self._broker = self._broker, None
        for window in self._windows:
            await window.close()
        if broker is not None:
            await asyncio.wait_for(broker.stop(), GRACE_SECONDS + 10)

    async def publish(self, event: CloudEvent, to: str) -> None:
        """Events of one `partitionkey`, subject or correlation keep their order."""
        assert self._broker is not None, "publishing begins when it is up"  # noqa: S101
        attributes, content_type, body = binary_of(event)
        headers = {f"ce_{name}": value for name, value in attributes.items()}
        headers |= {"content-type": content_type} if content_type else {}
        key = event.attribute("partitionkey") or event.subject or event.attribute("correlationid") or event.id
        try:
            await self._broker.publish(body, to, key=key.encode(), headers=headers)
        except (MessageSizeTooLargeError, InvalidTopicError, TopicAuthorizationFailedError) as error:
            raise UnpublishableError(f"Kafka does not take it: {error}") from error


class _Window:
    """The messages of a consumer that are in work. What is committed is what has been done without a gap: Kafka knows
    only how far a consumer is, and whatever lies before that is never brought again.
    """

    def __init__(self, concurrency: int) -> None:
        self._places = asyncio.Semaphore(concurrency)
        self._open: dict[TopicPartition, dict[int, bool]] = defaultdict(dict)
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, message: Any, take: Take) -> None:
        """Returns when there is room for another one."""
        await self._places.acquire()
        record = message.raw_message
        partition = TopicPartition(record.topic, record.partition)
        self._open[partition][record.offset] = False
        task = asyncio.create_task(self._work(message, take, partition, record.offset))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, message: Any, take: Take, partition: TopicPartition, offset: int) -> None:
        async def done() -> None:
            await self._commit(message.consumer, partition, offset)

        headers = in_text(message.headers)
        content_type = headers.get("content-type") or None
        try:
            await take(Message(headers=headers, content_type=content_type, body=message.body, ack=done))
        finally:
            self._places.release()

    async def _commit(self, consumer: Any, partition: TopicPartition, offset: int) -> None:
        offsets = self._open[partition]
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
                self._open.pop(partition, None)

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
            headers=in_text(record.headers),
            message_id=f"{record.topic}/{record.partition}/{record.offset}",
            consumer=getattr(record, "consumer", None) or subscriber().consumer,
        )

    return parsed
