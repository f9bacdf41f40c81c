"""`python -m bench.bare_consumer KIND URL SOURCE TEMPORAL QUEUE`: what one writes by hand in front of an agent.

A loop that reads messages, starts a workflow for each and acknowledges it. It holds nothing while Temporal is away,
has no dead letters, and a poison message stops it.
"""

import argparse
import asyncio
import hashlib
import os
import sys
from typing import Any

import aio_pika
import nats
import redis.asyncio
from aioboto3 import Session
from aiokafka import AIOKafkaConsumer
from nats.js.api import ConsumerConfig
from temporalio.client import Client

from bench.bare_workflow import BareRecord

BATCH = 20


async def _start(client: Client, queue: str, body: bytes) -> None:
    await client.start_workflow(BareRecord.run, body.decode(), id=hashlib.sha256(body).hexdigest(), task_queue=queue)


async def _nats(client: Client, plan: argparse.Namespace) -> None:
    connection = await nats.connect(plan.url)
    config = ConsumerConfig(max_ack_pending=BATCH)
    subscription = await connection.jetstream().pull_subscribe(plan.source, durable="bare", config=config)
    _report_ready()

    async def one(message: Any) -> None:
        await _start(client, plan.queue, message.data)
        await message.ack()

    while True:
        try:
            messages = await subscription.fetch(BATCH, timeout=5)
        except TimeoutError:
            continue
        await asyncio.gather(*map(one, messages))


async def _redis(client: Client, plan: argparse.Namespace) -> None:
    store: Any = redis.asyncio.Redis.from_url(plan.url)
    await store.xgroup_create(plan.source, "bare", id="0", mkstream=True)
    _report_ready()

    async def one(identity: bytes, fields: dict[bytes, bytes]) -> None:
        await _start(client, plan.queue, fields[b"data"])
        await store.xack(plan.source, "bare", identity)

    while True:
        found = await store.xreadgroup("bare", "one", {plan.source: ">"}, count=BATCH, block=1_000)
        for _, entries in found or []:
            await asyncio.gather(*(one(identity, fields) for identity, fields in entries))


async def _rabbitmq(client: Client, plan: argparse.Namespace) -> None:
    connection = await aio_pika.connect_robust(plan.url)
    channel = await connection.channel()
    await channel.set_qos(BATCH)
    queue = await channel.declare_queue(plan.source, durable=True)

    async def one(message: Any) -> None:
        await _start(client, plan.queue, message.body)
        await message.ack()

    await queue.consume(one)
    _report_ready()
    await asyncio.Future()


async def _kafka(client: Client, plan: argparse.Namespace) -> None:
    consumer = AIOKafkaConsumer(
        plan.source,
        bootstrap_servers=plan.url.removeprefix("kafka://"),
        group_id="bare",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    _report_ready()
    while True:
        found = await consumer.getmany(timeout_ms=1_000, max_records=BATCH)
        records = [record for part in found.values() for record in part]
        await asyncio.gather(*(_start(client, plan.queue, record.value) for record in records))
        if records:
            await consumer.commit()


async def _sqs(client: Client, plan: argparse.Namespace) -> None:
    async with Session(region_name=os.environ["AWS_REGION"]).client("sqs", endpoint_url=plan.url) as sqs:
        url = (await sqs.get_queue_url(QueueName=plan.source))["QueueUrl"]
        _report_ready()
        await asyncio.gather(*(_poll_sqs(sqs, url, client, plan) for _ in range(2)))


async def _poll_sqs(sqs: Any, url: str, client: Client, plan: argparse.Namespace) -> None:
    while True:
        found = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        messages = found.get("Messages", [])
        await asyncio.gather(*(_start(client, plan.queue, message["Body"].encode()) for message in messages))
        if messages:
            entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(messages)]
            await sqs.delete_message_batch(QueueUrl=url, Entries=entries)


def _report_ready() -> None:
    sys.stdout.write("consumes\n")
    sys.stdout.flush()


CONSUMERS = {"nats": _nats, "redis": _redis, "rabbitmq": _rabbitmq, "kafka": _kafka, "sqs": _sqs}


async def _consume(plan: argparse.Namespace) -> None:
    client = await Client.connect(plan.temporal)
    await CONSUMERS[plan.kind](client, plan)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("kind", "url", "source", "temporal", "queue"):
        parser.add_argument(name)
    asyncio.run(_consume(parser.parse_args()))
