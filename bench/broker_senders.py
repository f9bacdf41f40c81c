"""What sends messages to each broker: its library, and none of the product's code."""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aio_pika
import nats
import redis.asyncio
from aioboto3 import Session
from aiokafka import AIOKafkaProducer

# Takes a queue, subject, stream or topic, and a body.
Send = Callable[[str, bytes], Awaitable[object]]


@contextlib.asynccontextmanager
async def _nats(url: str, sources: list[str]) -> AsyncIterator[Send]:
    client = await nats.connect(url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="bench", subjects=sources)
    yield jetstream.publish
    await client.close()


@contextlib.asynccontextmanager
async def _redis(url: str, _: list[str]) -> AsyncIterator[Send]:
    store = redis.asyncio.Redis.from_url(url)
    yield lambda to, body: store.xadd(to, {"data": body})
    await store.aclose()


@contextlib.asynccontextmanager
async def _rabbitmq(url: str, sources: list[str]) -> AsyncIterator[Send]:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for source in sources:
            await channel.declare_queue(source, durable=True)

        async def send(to: str, body: bytes) -> object:
            message = aio_pika.Message(body, delivery_mode=2, content_type="application/json")
            return await channel.default_exchange.publish(message, routing_key=to)

        yield send


@contextlib.asynccontextmanager
async def _kafka(url: str, _: list[str]) -> AsyncIterator[Send]:
    producer = AIOKafkaProducer(bootstrap_servers=url.removeprefix("kafka://"), acks="all")
    await producer.start()
    yield producer.send_and_wait
    await producer.stop()


@contextlib.asynccontextmanager
async def _sqs(url: str, sources: list[str]) -> AsyncIterator[Send]:
    session = Session(region_name=os.environ["AWS_REGION"])
    async with session.client("sqs", endpoint_url=url) as client:
        urls: dict[str, Any] = {name: (await client.get_queue_url(QueueName=name))["QueueUrl"] for name in sources}
        yield lambda to, body: client.send_message(QueueUrl=urls[to], MessageBody=body.decode())


SENDERS = {"nats": _nats, "redis": _redis, "rabbitmq": _rabbitmq, "kafka": _kafka, "sqs": _sqs}
