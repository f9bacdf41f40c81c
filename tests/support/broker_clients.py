"""Plain clients of brokers, as other programs use them: none of the product's code."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aio_pika
import boto3
import confluent_kafka
import nats
import redis.asyncio
from confluent_kafka.admin import AdminClient
from nats.js.errors import NotFoundError

STRUCTURED = "application/cloudevents+json"

# What a client sends to, and reads from.
INBOUND, OUTBOUND = "in-events", "out-events"

GROUP = "sevenfold"


@dataclass(frozen=True)
class Got:
    """A message: its CloudEvents attributes without a prefix, its content type and its body."""

    attributes: dict[str, str]
    content_type: str | None
    body: bytes


class NatsClient:
    prefix = read_prefix = "ce-"

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None

    async def open(self) -> None:
        self._client = await nats.connect(self._url, max_reconnect_attempts=-1, reconnect_time_wait=1)

    async def close(self) -> None:
        await self._client.close()

    async def send(self, headers: Mapping[str, str], content_type: str | None, body: bytes, key: str = "") -> None:
        more = {"content-type": content_type} if content_type else {}
        await self._client.jetstream().publish(INBOUND, body, headers={**headers, **more} or None)

    async def got(self) -> list[Got]:
        subscription = await self._client.jetstream().pull_subscribe(OUTBOUND, durable="reader")
        found = []
        try:
            while True:
                for message in await subscription.fetch(10, timeout=0.5):
                    headers = dict(message.headers or {})
                    await message.ack()
                    found.append(_got(headers, self.read_prefix, headers.get("ce-datacontenttype"), message.data))
        except (TimeoutError, nats.errors.TimeoutError):
            return found

    async def delete_consumer(self) -> None:
        await self._client.jetstream().delete_consumer(f"sevenfold-{INBOUND}", f"{GROUP}-{INBOUND}")

    async def left(self) -> int:
        info = await self._client.jetstream().consumer_info(f"sevenfold-{INBOUND}", f"{GROUP}-{INBOUND}")
        return int(info.num_ack_pending) + int(info.num_pending)

    async def ready(self) -> bool:
        try:
            await self.left()
        except NotFoundError:
            return False
        return True


class RabbitClient:
    prefix = "cloudEvents:"
    read_prefix = "cloudEvents_"

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._channel: Any = None

    async def open(self) -> None:
        self._connection = await aio_pika.connect_robust(self._url)
        self._channel = await self._connection.channel()
        await self._channel.declare_queue(OUTBOUND, durable=True)

    async def close(self) -> None:
        await self._connection.close()

    async def send(self, headers: Mapping[str, str], content_type: str | None, body: bytes, key: str = "") -> None:
        message = aio_pika.Message(body, headers=dict(headers), content_type=content_type, delivery_mode=2)
        await self._channel.default_exchange.publish(message, routing_key=INBOUND)

    async def got(self) -> list[Got]:
        queue = await self._channel.declare_queue(OUTBOUND, durable=True)
        found = []
        while (message := await queue.get(fail=False)) is not None:
            await message.ack()
            headers = {name: str(value) for name, value in message.headers.items()}
            found.append(_got(headers, self.read_prefix, message.content_type, message.body))
        return found

    async def left(self) -> int:
        """Those that no consumer holds."""
        channel = await self._connection.channel()
        try:
            queue = await channel.declare_queue(INBOUND, passive=True)
            return int(queue.declaration_result.message_count)
        finally:
            await channel.close()

    async def ready(self) -> bool:
        try:
            await self.left()
        except aio_pika.exceptions.AMQPException:
            return False
        return True


class RedisClient:
    prefix = read_prefix = "ce_"

    def __init__(self, url: str) -> None:
        self._client = redis.asyncio.Redis.from_url(url)
        self._read = b"0"

    async def open(self) -> None:
        await self._client.ping()

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, headers: Mapping[str, str], content_type: str | None, body: bytes, key: str = "") -> None:
        more = {"content-type": content_type} if content_type else {}
        fields: dict[Any, Any] = {**headers, **more, "data": body}
        await self._client.xadd(INBOUND, fields)

    async def got(self) -> list[Got]:
        found = []
        for identity, fields in await self._client.xrange(OUTBOUND, min=f"({self._read.decode()}"):
            self._read = identity
            headers = {name.decode(): value for name, value in fields.items()}
            body = headers.pop("data")
            texts = {name: value.decode() for name, value in headers.items()}
            found.append(_got(texts, self.read_prefix, texts.get("content-type"), body))
        return found

    async def left(self) -> int:
        (group,) = await self._client.xinfo_groups(INBOUND)
        return int(group["pending"]) + int(group["lag"])

    async def ready(self) -> bool:
        try:
            return bool(await self._client.xinfo_groups(INBOUND))
        except redis.exceptions.ResponseError:
            return False


class KafkaClient:
    prefix = read_prefix = "ce_"

    def __init__(self, url: str) -> None:
        self._url = url
        self._producer = confluent_kafka.Producer({"bootstrap.servers": url})
        self._consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": url, "group.id": "reader", "auto.offset.reset": "earliest"}
        )

    async def open(self) -> None:
        partitions = [confluent_kafka.TopicPartition(OUTBOUND, number, 0) for number in range(2)]
        self._consumer.assign(partitions)

    async def close(self) -> None:
        await asyncio.to_thread(self._consumer.close)

    async def send(self, headers: Mapping[str, str], content_type: str | None, body: bytes, key: str = "k") -> None:
        more = [("content-type", content_type.encode())] if content_type else []
        known = [(name, value.encode()) for name, value in headers.items()]
        self._producer.produce(INBOUND, body, key=(key or "k").encode(), headers=[*known, *more])
        assert await asyncio.to_thread(self._producer.flush, 20) == 0

    async def got(self) -> list[Got]:
        found = []
        while (message := await asyncio.to_thread(self._consumer.poll, 1.0)) is not None:
            if message.error() is None:
                headers = {name: value.decode() for name, value in message.headers() or []}
                found.append(_got(headers, self.read_prefix, headers.get("content-type"), message.value()))
        return found

    async def left(self) -> int:
        return await asyncio.to_thread(self._behind)

    def _behind(self) -> int:
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self._url, "group.id": GROUP})
        try:
            partitions = [confluent_kafka.TopicPartition(INBOUND, number) for number in range(2)]
            behind = 0
            for committed in consumer.committed(partitions, 10):
                low, high = consumer.get_watermark_offsets(committed, 10)
                behind += high - max(committed.offset, low)
            return behind
        finally:
            consumer.close()

    async def ready(self) -> bool:
        topics = await asyncio.to_thread(AdminClient({"bootstrap.servers": self._url}).list_topics, None, 10)
        return INBOUND in topics.topics


class SqsClient:
    prefix = "ce_"
    read_prefix = ""

    def __init__(self, url: str) -> None:
        self._client: Any = boto3.client("sqs", region_name="eu-central-1", endpoint_url=url)

    async def open(self) -> None:
        self._inbound = await self._find(INBOUND)
        self._outbound = await self._find(OUTBOUND)

    async def _find(self, name: str) -> str:
        return str((await asyncio.to_thread(self._client.get_queue_url, QueueName=name))["QueueUrl"])

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def send(self, headers: Mapping[str, str], content_type: str | None, body: bytes, key: str = "") -> None:
        known = {**headers, **({"content-type": content_type} if content_type else {})}
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in known.items()}
        await asyncio.to_thread(
            self._client.send_message,
            QueueUrl=self._inbound,
            MessageBody=body.decode(errors="replace"),
            MessageAttributes=attributes,
        )

    async def got(self) -> list[Got]:
        found = []
        while messages := (await asyncio.to_thread(self._receive)).get("Messages"):
            for message in messages:
                headers = {name: one["StringValue"] for name, one in message["MessageAttributes"].items()}
                found.append(_unpack(headers, message["Body"]))
                await asyncio.to_thread(
                    self._client.delete_message, QueueUrl=self._outbound, ReceiptHandle=message["ReceiptHandle"]
                )
        return found

    def _receive(self) -> Any:
        return self._client.receive_message(
            QueueUrl=self._outbound, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )

    async def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        response = await asyncio.to_thread(
            self._client.get_queue_attributes, QueueUrl=self._inbound, AttributeNames=names
        )
        return sum(int(response["Attributes"][name]) for name in names)

    async def ready(self) -> bool:
        return True


def _unpack(headers: dict[str, str], body: str) -> Got:
    """SQS gets events in structured mode, since it takes ten attributes only."""
    if headers.get("content-type") != STRUCTURED:
        return Got(headers, headers.get("content-type"), body.encode())
    raw = json.loads(body)
    data = json.dumps(raw.pop("data", None)).encode()
    return Got({name: str(value) for name, value in raw.items()}, raw["datacontenttype"], data)


def _got(headers: dict[str, str], prefix: str, content_type: str | None, body: bytes) -> Got:
    attributes = {n.removeprefix(prefix): v for n, v in headers.items() if n.startswith(prefix)}
    return Got(attributes, content_type, body)


Client = NatsClient | RabbitClient | RedisClient | KafkaClient | SqsClient
CLIENTS: dict[str, Callable[[str], Client]] = {
    "nats": NatsClient,
    "rabbitmq": RabbitClient,
    "redis": RedisClient,
    "kafka": KafkaClient,
    "sqs": SqsClient,
}


@asynccontextmanager
async def client_of(kind: str, url: str) -> AsyncIterator[Client]:
    client: Client = CLIENTS[kind](url)
    await client.open()
    try:
        yield client
    finally:
        await client.close()
