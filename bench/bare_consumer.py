"""`python -m bench.bare_consumer KIND URL SOURCE TEMPORAL QUEUE`: what one writes by hand in front of an agent.

A loop that reads messages, starts a workflow for each and acknowledges it. It holds nothing while Temporal is away,
has no dead letters, and a poison message stops it.
"""

import argparse
import asyncio
import hashlib
import sys
from typing import Any

import nats
import redis.asyncio
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


def _report_ready() -> None:
    sys.stdout.write("consumes\n")
    sys.stdout.flush()


async def _consume(plan: argparse.Namespace) -> None:
    client = await Client.connect(plan.temporal)
    await {"nats": _nats, "redis": _redis}[plan.kind](client, plan)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("kind", "url", "source", "temporal", "queue"):
        parser.add_argument(name)
    asyncio.run(_consume(parser.parse_args()))
