"""Amazon SQS transport."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from sevenfold.adapters.brokers.aws.batcher import Batcher
from sevenfold.adapters.brokers.aws.client import CONFIG, open_session
from sevenfold.adapters.brokers.aws.large_messages import MessageBucket
from sevenfold.adapters.brokers.aws.queues import FAULTS_OF_ENTRIES, Queue, Queues, call_batch
from sevenfold.adapters.brokers.aws.receiver import QueueReceiver
from sevenfold.adapters.brokers.message import STRUCTURED, Lag, MessageHandler, UnpublishableError, ordering_key
from sevenfold.contracts.config.brokers import ConsumeConfig
from sevenfold.contracts.events.cloudevents import CloudEvent, to_binary_mode
from sevenfold.contracts.events.event_driven import OutboundRoute
from sevenfold.contracts.messages.maps import MessageFormat

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

log = structlog.get_logger(__name__)

# SQS takes ten attributes per message, fewer than an event may have: these, and the content type.
_FIRST_ATTRIBUTES = (
    "id",
    "type",
    "source",
    "subject",
    "time",
    "correlationid",
    "outcome",
    "causationid",
    "traceparent",
)
_MAX_GROUP_CHARACTERS = 128

# The end of AWS's codes for a queue that does not exist, or whose name cannot.
_NO_QUEUE = ("NonExistentQueue", "QueueDoesNotExist", "InvalidParameterValue", "InvalidAddress")


class SqsTransport:
    """A receiver per queue, and batches of messages to each queue of the routes. Queues must exist: their settings,
    such as the redrive policy, are their owner's. `bucket`: for messages above a queue's limit, if there is one.
    """

    def __init__(
        self, consume: Sequence[ConsumeConfig], publish_to: Sequence[str], bucket: str | None = None
    ) -> None:
        self._consume = consume
        self._bucket_name = bucket
        self._bucket: MessageBucket | None = None
        self._sources = [*dict.fromkeys([*(one.source for one in consume), *publish_to])]
        self._resources: AsyncExitStack | None = None
        self._queues: Queues | None = None
        self._batchers: dict[str, Batcher[dict[str, Any]]] = {}
        self._sqs: SQSClient | None = None
        self._receiving: list[asyncio.Task[None]] = []

    async def start(self, on_message: MessageHandler) -> None:
        """Looks up the queues and starts to receive. Raises while AWS or a queue is missing."""
        async with AsyncExitStack() as opening:
            sqs = await opening.enter_async_context(open_session().client("sqs", config=CONFIG))
            queues = Queues(sqs)
            for source in self._sources:
                await queues.find(source)
            if self._bucket_name is not None:
                self._bucket = await MessageBucket.open(opening, self._bucket_name)
            self._resources = opening.pop_all()
        self._sqs, self._queues, self._batchers = sqs, queues, {}
        for one in self._consume:
            receiver = QueueReceiver(sqs, await queues.find(one.source), one, on_message)
            self._receiving.append(asyncio.create_task(receiver.run(), name=f"receives from {one.source}"))

    def is_alive(self) -> bool:
        """A receiver ends when SQS refuses it or does not answer."""
        for task in self._receiving:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                log.warning("receiving from SQS ended", error=str(error))
        return self._sqs is not None and not any(task.done() for task in self._receiving)

    async def ping(self) -> bool:
        """Whether SQS answers now."""
        if self._sqs is None or self._queues is None or not self._sources:
            return self._sqs is not None
        queue = await self._queues.find(self._sources[0])
        async with asyncio.timeout(2):
            await self._sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["QueueArn"])
        return True

    async def read_lag(self) -> Lag:
        """Returns the messages of each queue that no consumer holds, by SQS's own approximate count."""
        found: dict[tuple[str, str], int] = {}
        if self._queues is None or self._sqs is None:
            return found
        for one in self._consume:
            queue = await self._queues.find(one.source)
            response = await self._sqs.get_queue_attributes(
                QueueUrl=queue.url, AttributeNames=["ApproximateNumberOfMessages"]
            )
            found[one.source, ""] = int(response["Attributes"]["ApproximateNumberOfMessages"])
        return found

    async def stop(self) -> None:
        """Gives back what is held and closes the connections."""
        receiving, self._receiving = self._receiving, []
        for task in receiving:
            task.cancel()
        await asyncio.gather(*receiving, return_exceptions=True)
        await asyncio.gather(*(batcher.aclose() for batcher in self._batchers.values()))
        resources, self._resources = self._resources, None
        self._sqs = self._queues = None
        if resources is not None:
            await resources.aclose()

    async def publish(self, event: CloudEvent, route: OutboundRoute) -> None:
        """Sends an event to a queue, in structured mode. In a FIFO queue the deduplication id is made of the event's
        source and id. Raises UnpublishableError.
        """
        assert self._queues is not None, "publish is called after start"  # noqa: S101
        queue = await self._find_queue(self._queues, route)
        entry = build_entry(event, queue, route.format)
        size = _size(entry)
        if size > queue.max_bytes and self._bucket is not None:
            entry = await self._bucket.store_body(entry, queue.url, event.source, event.id)
            size = _size(entry)
        if size > queue.max_bytes:
            raise UnpublishableError(
                f"The message has {size:,} bytes, and the queue {queue.name} takes {queue.max_bytes:,}."
            )
        await self._batcher(queue).add(entry, size)

    async def _find_queue(self, queues: Queues, route: OutboundRoute) -> Queue:
        if route.is_sender_chosen and "://" in route.to:
            raise UnpublishableError("A sender may name a queue of this account only, not a URL.")
        try:
            return await queues.find(route.to)
        except ClientError as error:
            if not route.is_sender_chosen or not error.response["Error"].get("Code", "").endswith(_NO_QUEUE):
                raise
            raise UnpublishableError(f"There is no queue {route.to}.") from error

    def _batcher(self, queue: Queue) -> Batcher[dict[str, Any]]:
        sqs = self._sqs
        assert sqs is not None, "publish is called after start"  # noqa: S101
        if queue.url not in self._batchers:
            self._batchers[queue.url] = Batcher(
                lambda entries: call_batch(sqs.send_message_batch, queue.url, entries),
                FAULTS_OF_ENTRIES,
                queue.max_bytes,
            )
        return self._batchers[queue.url]


def build_entry(event: CloudEvent, queue: Queue, form: MessageFormat) -> dict[str, Any]:
    """Returns the entry of SendMessageBatch for an event. Raises UnpublishableError if its data is not text."""
    if form is MessageFormat.PLAIN:
        attributes, content_type, data = to_binary_mode(event)
        try:
            body = data.decode()
        except UnicodeDecodeError:
            raise UnpublishableError("SQS takes text only, and the event's data is binary.") from None
        named = {"content-type": content_type or "text/plain"}
        named |= {name: attributes[name] for name in _FIRST_ATTRIBUTES if attributes.get(name)}
    else:
        # ASCII, because SQS refuses some characters that JSON allows.
        body = json.dumps(event.model_dump(exclude_none=True))
        named = {"content-type": STRUCTURED}
    entry: dict[str, Any] = {
        "MessageBody": body,
        "MessageAttributes": {name: {"DataType": "String", "StringValue": text} for name, text in named.items()},
    }
    if queue.is_fifo:
        entry["MessageGroupId"] = _as_token(ordering_key(event))
        entry["MessageDeduplicationId"] = _as_token(f"{event.source} {event.id}")
    return entry


def _as_token(text: str) -> str:
    """Returns the text if SQS takes it as an id (ASCII without spaces, 128 characters), otherwise its hash."""
    if len(text) <= _MAX_GROUP_CHARACTERS and text.isascii() and text.isprintable() and " " not in text:
        return text
    return hashlib.sha256(text.encode()).hexdigest()


def _size(entry: dict[str, Any]) -> int:
    attributes = entry["MessageAttributes"].items()
    return len(entry["MessageBody"].encode()) + sum(
        len(name.encode()) + len(value["DataType"]) + len(value["StringValue"].encode()) for name, value in attributes
    )
