"""One suite over no broker at all and four: events in, events out, once each, whatever arrives."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import aio_pika
import nats
import pytest
from nats.js.api import RetentionPolicy, StreamConfig

from tests.support.broker_clients import INBOUND, OUTBOUND, STRUCTURED, Client, Got, NatsClient, client_of
from tests.support.broker_servers import KINDS, Aws, Kafka, Server, broker_section, broker_server
from tests.support.events import EVENTS, LETTERS, event, wait_until_settled
from tests.support.processes import until
from tests.support.stack import Stack, running_stack

WAYS = ("http", *KINDS)

# What a user has created before: a subject of a work queue, a classic queue.
OWN_SOURCES = {"nats": "work.items", "rabbitmq": "classic"}


def configuration(urls: dict[str, str]) -> str:
    """Each broker brings events of a type of its own, and gets what is derived of them."""
    parts = []
    for way in WAYS:
        parts.append(
            f'[[subscriptions]]\nname = "{way}"\nfilter = {{ exact = {{ type = "b.in.{way}" }} }}\n'
            f'agent = "witness"\ntask = "work"\npublishes = "b.out.{way}"\n'
        )
    for kind, url in urls.items():
        parts.append(
            f"{broker_section(kind, url)}"
            f'[[brokers.{kind}.consume]]\nfrom = "{INBOUND}"\nconcurrency = 3\n'
            f'[[brokers.{kind}.publish]]\nfilter = {{ exact = {{ type = "b.out.{kind}" }} }}\nto = "{OUTBOUND}"\n'
        )
        if kind in OWN_SOURCES:
            parts.append(f'[[brokers.{kind}.consume]]\nfrom = "{OWN_SOURCES[kind]}"\n')
    return "\n".join(parts)


@dataclass
class Ways:
    """A running product, the brokers that it is connected to, and a client of each."""

    stack: Stack
    servers: dict[str, Server | Kafka | Aws]
    clients: dict[str, Client]

    async def send(self, way: str, cloud_event: dict[str, Any], *, structured: bool = False) -> None:
        """Sends an event, in binary mode unless it shall be structured."""
        headers, content_type, body = {}, STRUCTURED, json.dumps(cloud_event).encode()
        prefix = "ce-" if way == "http" else self.clients[way].prefix
        if not structured:
            encoded = quote if way in ("http", "nats") else str
            headers = {
                f"{prefix}{name}": encoded(str(value)) for name, value in cloud_event.items() if name != "data"
            }
            content_type, body = "application/json", json.dumps(cloud_event.get("data")).encode()
        await self.send_raw(way, headers, content_type, body)

    async def send_raw(self, way: str, headers: dict[str, str], content_type: str, body: bytes) -> None:
        if way == "http":
            await self.stack.http.post(EVENTS, headers={**headers, "content-type": content_type}, content=body)
        else:
            await self.clients[way].send(headers, content_type, body)

    async def accepted(self, source: str, count: int, *, seconds: float = 60) -> list[dict[str, Any]]:
        """The events of a source, once there are so many."""
        async with asyncio.timeout(seconds):
            while True:
                page = (await self.stack.http.get(EVENTS, params={"source": source, "limit": 100})).json()
                if len(page["items"]) >= count:
                    return list(page["items"])
                await asyncio.sleep(0.2)

    async def got(self, way: str, count: int, *, seconds: float = 60) -> list[Got]:
        """What the broker has got, once it is so much."""
        found: list[Got] = []
        async with asyncio.timeout(seconds):
            while len(found) < count:
                found += await self.clients[way].got()
                await asyncio.sleep(0.2)
        return found


@pytest.fixture(scope="module")
async def ways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ways]:
    async with AsyncExitStack() as open_ways:
        servers = {
            kind: open_ways.enter_context(broker_server(kind, tmp_path_factory.mktemp(kind), INBOUND, OUTBOUND))
            for kind in KINDS
        }
        yield await running_ways(open_ways, servers, tmp_path_factory.mktemp("stack"))


async def running_ways(open_ways: AsyncExitStack, servers: dict[str, Server | Kafka | Aws], directory: Path) -> Ways:
    urls = {kind: server.url for kind, server in servers.items()}
    connected = await nats.connect(urls["nats"])
    work = StreamConfig(name="work", subjects=[OWN_SOURCES["nats"]], retention=RetentionPolicy.WORK_QUEUE)
    await connected.jetstream().add_stream(work)
    await connected.close()
    async with await aio_pika.connect(urls["rabbitmq"]) as connection:
        await (await connection.channel()).declare_queue(OWN_SOURCES["rabbitmq"], durable=True)
    stack = await open_ways.enter_async_context(running_stack(directory, more_config=configuration(urls)))
    clients = {kind: await open_ways.enter_async_context(client_of(kind, url)) for kind, url in urls.items()}
    for client in clients.values():
        await until(client.ready, seconds=60)
    return Ways(stack, servers, clients)


@pytest.mark.parametrize("structured", [False, True], ids=["binary", "structured"])
@pytest.mark.parametrize("way", WAYS)
async def test_inbound_event_publishes_its_derived_event(ways: Ways, way: str, structured: bool) -> None:
    source = f"/in/{way}/{structured}"
    cloud_event = event(
        f"b.in.{way}", {"ü": [1, None, "x"]}, source=source, subject="sü b", correlationid=f"c-{source}"
    )
    await ways.send(way, cloud_event, structured=structured)
    (accepted,) = await ways.accepted(source, 1)
    assert accepted["event"]["data"] == cloud_event["data"]
    assert accepted["event"]["subject"] == "sü b"
    assert accepted["via"] == way
    found = await wait_until_settled(ways.stack.http, accepted["id"])
    (derived,) = found["reactions"][0]["published"]
    assert derived["type"] == f"b.out.{way}"
    if way != "http":
        (got,) = await ways.got(way, 1)
        assert got.attributes["id"] == derived["eventId"]
        assert got.attributes["type"] == f"b.out.{way}"
        assert unquote(got.attributes["correlationid"]) == f"c-{source}"
        assert unquote(got.attributes["subject"]) == "sü b"
        assert got.attributes["causationid"] == cloud_event["id"]
        assert got.attributes["hops"] == "1"
        assert got.content_type == "application/json"
        assert json.loads(got.body)["seen"] == cloud_event["data"]


@pytest.mark.parametrize("way", KINDS)
async def test_ten_deliveries_over_two_transports_start_one_run(ways: Ways, way: str) -> None:
    source = f"/ten/{way}"
    cloud_event = event(f"b.in.{way}", {"n": 1}, source=source, hops=2)
    for number in range(5):
        await asyncio.gather(ways.send(way, cloud_event, structured=number % 2 == 0), ways.send("http", cloud_event))
    (accepted,) = await ways.accepted(source, 1)
    await until(lambda: nothing_left(ways, way), seconds=60)
    await wait_until_settled(ways.stack.http, accepted["id"])
    assert len(await ways.accepted(source, 1)) == 1
    assert len(await ways.got(way, 1)) == 1
    letters = (await ways.stack.http.get(LETTERS, params={"kind": "rejected"})).json()["items"]
    assert not [letter for letter in letters if accepted["id"] in letter["reason"]]


async def nothing_left(ways: Ways, way: str) -> bool:
    return await ways.clients[way].left() == 0


@pytest.mark.parametrize("way", KINDS)
async def test_poison_message_becomes_a_dead_letter_and_the_next_is_processed(ways: Ways, way: str) -> None:
    source = f"/poison/{way}"
    prefix = ways.clients[way].prefix
    no_id = {f"{prefix}specversion": "1.0", f"{prefix}source": source, f"{prefix}type": "t", "authorization": "tok"}
    await ways.send_raw(way, {}, "application/json", b"\xff\xfe no json")
    await ways.send_raw(way, no_id, "application/json", b"{}")
    await ways.send_raw(way, {**no_id, f"{prefix}id": "x"}, "application/json", b"{")
    # What a broker carries by default differs; an attribute is too large where the body cannot be.
    large = {"nats": 900_000, "kafka": 900_000, "sqs": 100_000}.get(way, 1_500_000)
    oversize = {**no_id, f"{prefix}id": "y"} | ({} if large > 1_000_000 else {f"{prefix}more": "x" * 4_097})
    await ways.send_raw(way, oversize, "text/plain", b"x" * large)
    good = event(f"b.in.{way}", {"n": 2}, source=source)
    await ways.send(way, good)
    (accepted,) = await ways.accepted(source, 1)
    assert accepted["event"]["id"] == good["id"]
    await until(lambda: nothing_left(ways, way), seconds=60)
    reasons: list[str] = []
    async with asyncio.timeout(20):
        while len(reasons) < 4:
            letters = (await ways.stack.http.get(LETTERS, params={"kind": "rejected", "limit": 100})).json()["items"]
            reasons = [letter["reason"] for letter in letters if letter["via"] == way]
            await asyncio.sleep(0.2)
    reasons_text = " | ".join(reasons)
    assert "is not JSON" in reasons_text
    assert "id: Field required" in reasons_text
    assert "does not match its content type" in reasons_text
    assert "bytes" in reasons_text or "must be a string" in reasons_text
    for letter in letters:
        history = await ways.stack.temporal.get_workflow_handle(f"default:{letter['id']}").fetch_history()
        given = history.events[0].workflow_execution_started_event_attributes.input.payloads[0].data
        assert b"authorization" not in given, "headers that are no event's are not kept"
    if way != "http":
        await ways.got(way, 1)


@pytest.mark.parametrize("way", KINDS)
async def test_broker_restart_loses_no_event(ways: Ways, way: str) -> None:
    source = f"/restart/{way}"
    server = ways.servers[way]
    for n in range(5):
        await ways.send(way, event(f"b.in.{way}", {"n": n}, source=source))
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(1)
    # what comes by another way meanwhile is published once the broker is back
    for n in range(5, 8):
        await ways.send("http", event(f"b.in.{way}", {"n": n}, source=source))
    await asyncio.to_thread(server.start)

    async def sends_again() -> bool:
        try:
            await asyncio.wait_for(ways.clients[way].ready(), 5)
            await ways.send(way, event(f"b.in.{way}", {"n": 8}, source=source, id="after"))
        except Exception:
            return False
        return True

    await until(sends_again, seconds=60)
    accepted = await ways.accepted(source, 9, seconds=90)
    assert sorted(one["event"]["data"]["n"] for one in accepted) == list(range(9))
    ids: set[str] = set()
    async with asyncio.timeout(90):  # a broker that went down before it confirmed may have one twice
        while len(ids) < 9:
            ids |= {one.attributes["id"] for one in await ways.got(way, 1, seconds=90)}
    assert len(ids) == 9
    await until(lambda: nothing_left(ways, way), seconds=60)


async def test_a_work_queue_of_nats_is_emptied(ways: Ways) -> None:
    source = "/work-queue"
    connected = await nats.connect(ways.servers["nats"].url)
    try:
        jetstream = connected.jetstream()
        for n in range(3):
            body = json.dumps(event("b.in.nats", {"n": n}, source=source)).encode()
            await jetstream.publish(OWN_SOURCES["nats"], body, headers={"content-type": STRUCTURED})
        await ways.accepted(source, 3)

        async def is_empty() -> bool:
            return (await jetstream.stream_info("work")).state.messages == 0

        await until(is_empty, seconds=20)
        assert (await jetstream.stream_info("work")).config.retention == RetentionPolicy.WORK_QUEUE
    finally:
        await connected.close()
    await ways.got("nats", 3)


async def test_a_missing_queue_is_a_quorum_queue_and_an_existing_one_stays_as_it_is(ways: Ways) -> None:
    async with await aio_pika.connect(ways.servers["rabbitmq"].url) as connection:
        for name, own, other in ((INBOUND, "quorum", "classic"), (OWN_SOURCES["rabbitmq"], "classic", "quorum")):
            channel = await connection.channel()
            with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed, match=own):
                await channel.declare_queue(name, durable=True, arguments={"x-queue-type": other})
        channel = await connection.channel()
        body = json.dumps(event("b.in.rabbitmq", {"n": 1}, source="/classic")).encode()
        message = aio_pika.Message(body, content_type=STRUCTURED)
        await channel.default_exchange.publish(message, routing_key=OWN_SOURCES["rabbitmq"])
    await ways.accepted("/classic", 1)
    await ways.got("rabbitmq", 1)


async def test_a_deleted_consumer_of_nats_is_created_again(ways: Ways) -> None:
    source = "/deleted-consumer"
    client = ways.clients["nats"]
    assert isinstance(client, NatsClient)
    await client.delete_consumer()
    await ways.send("nats", event("b.in.nats", {"n": 1}, source=source))
    (accepted,) = await ways.accepted(source, 1)
    await wait_until_settled(ways.stack.http, accepted["id"])
    await ways.got("nats", 1)
