"""Amazon SQS, SNS and EventBridge, against moto's server over HTTP."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sevenfold.adapters.brokers.aws.envelopes import open_message
from sevenfold.adapters.brokers.aws.sqs import SqsTransport
from sevenfold.adapters.brokers.message import BrokerMessage
from sevenfold.contracts.events.cloudevents import event_from_json
from sevenfold.contracts.events.event_driven import OutboundRoute
from sevenfold.contracts.messages.maps import MessageFormat
from tests.support.aws_server import ACCOUNT, REGION, Aws
from tests.support.events import EVENTS, LETTERS, dead_letters, event, published, wait_until_settled
from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.stack import Sevenfold, Stack, make_settings, running_stack, sevenfold

STRUCTURED = "application/cloudevents+json"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

CONFIG = """
[[subscriptions]]
name = "ordered"
filter = { exact = { type = "order.changed" } }
agent = "witness"
task = "work"
order_by = "partitionkey"
publishes = "order.seen"

[brokers.aws]
kind = "sqs"
[[brokers.aws.consume]]
from = "orders.fifo"
map = { type = "order.changed", source = "/orders" }
[[brokers.aws.consume]]
from = "notes"
map = { type = "note", source = "/notes", subject = "$headers/Subject", data = "$body" }
[[brokers.aws.publish]]
filter = { exact = { type = "order.seen" } }
to = "seen.fifo"
[[brokers.aws.publish]]
filter = { exact = { type = "to.small" } }
to = "small"
[[brokers.aws.publish]]
filter = { exact = { type = "to.plain" } }
to = "small"
format = "plain"

[brokers.bus]
kind = "eventbridge"
[[brokers.bus.publish]]
filter = { prefix = { type = "to.bus" } }
to = "shop"
[[brokers.bus.publish]]
filter = { exact = { type = "to.plain-bus" } }
to = "shop"
format = "plain"
"""


@dataclass
class Cloud:
    """A running product, and the server of AWS that it is connected to."""

    stack: Stack
    aws: Aws
    urls: dict[str, str]

    def send(self, queue: str, body: str, **options: Any) -> None:
        self.aws.client("sqs").send_message(QueueUrl=self.urls[queue], MessageBody=body, **options)

    def received(self, queue: str) -> list[dict[str, Any]]:
        client, url, found = self.aws.client("sqs"), self.urls[queue], []
        while messages := client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
        ).get("Messages"):
            for message in messages:
                client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found += messages
        return found

    async def got(self, queue: str, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                found += await asyncio.to_thread(self.received, queue)
        return found

    async def events(self, source: str, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(60):
            while True:
                page = (await self.stack.http.get(EVENTS, params={"source": source, "limit": 100})).json()
                if len(page["items"]) >= count:
                    return list(page["items"])
                await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cloud]:
    directory = tmp_path_factory.mktemp("aws")
    async with AsyncExitStack() as opened:
        aws = Aws(directory)
        opened.callback(aws.close)
        urls = {name: aws.queue(name) for name in ("notes", "from-bus")}
        urls["orders.fifo"] = aws.queue("orders.fifo", ContentBasedDeduplication="true")
        urls["seen.fifo"] = aws.queue("seen.fifo")
        urls["small"] = aws.queue("small", MaximumMessageSize="2048")
        route_bus_to_queue(aws, urls["from-bus"])
        stack = await opened.enter_async_context(running_stack(directory, more_config=CONFIG))
        yield Cloud(stack, aws, urls)


def route_bus_to_queue(aws: Aws, url: str) -> None:
    """What comes to the bus `shop` goes to a queue, as EventBridge's targets do it."""
    events = aws.client("events")
    events.create_event_bus(Name="shop")
    events.put_rule(Name="all", EventBusName="shop", EventPattern=json.dumps({"account": [ACCOUNT]}))
    target = {"Id": "queue", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{url.rpartition('/')[2]}"}
    events.put_targets(Rule="all", EventBusName="shop", Targets=[target])


async def test_fifo_messages_keep_the_order_of_their_group_and_their_deduplication_id(cloud: Cloud) -> None:
    for number in range(12):
        group = f"customer-{number % 2}"
        cloud.send(
            "orders.fifo",
            json.dumps({"number": number}),
            MessageGroupId=group,
            MessageDeduplicationId=f"change-{number}",
        )
    accepted = await cloud.events("/orders", 12)
    assert {one["event"]["id"] for one in accepted} == {f"change-{number}" for number in range(12)}
    assert {one["event"]["partitionkey"] for one in accepted} == {"customer-0", "customer-1"}
    for one in accepted:
        await wait_until_settled(cloud.stack.http, one["id"])
    got = await cloud.got("seen.fifo", 12)
    seen: dict[str, list[int]] = {}
    for message in got:
        body = json.loads(message["Body"])
        assert message["MessageAttributes"]["content-type"]["StringValue"] == STRUCTURED
        assert message["Attributes"]["MessageDeduplicationId"] == identity(body["source"], body["id"])
        seen.setdefault(body["data"]["seen"]["number"] % 2, []).append(body["data"]["seen"]["number"])
    assert seen == {0: [0, 2, 4, 6, 8, 10], 1: [1, 3, 5, 7, 9, 11]}


def identity(source: str, event_id: str) -> str:
    whole = f"{source} {event_id}"
    return hashlib.sha256(whole.encode()).hexdigest()


async def test_equal_messages_with_two_message_ids_are_two_events(cloud: Cloud) -> None:
    """With deduplication by content the id is a hash of the body, which equals that of the same text next week."""
    cloud.send("orders.fifo", '{"number": 100}', MessageGroupId="same")
    accepted = await cloud.events("/orders", 13)
    (same,) = [one["event"] for one in accepted if one["event"]["data"] == {"number": 100}]
    assert same["id"].startswith("orders.fifo-")


@pytest.mark.parametrize(
    ("by_group", "dedup_id", "place"),
    [
        (False, "change-1", "change-1"),
        (True, "change-1", "customer-1 change-1"),
        (False, hashlib.sha256(b"{}").hexdigest(), "orders.fifo-m-1"),
        (False, "", "orders.fifo-m-1"),
    ],
)
def test_identity_of_a_message_is_what_its_queue_deduplicates_by(by_group: bool, dedup_id: str, place: str) -> None:
    """Deduplication within a group is among what moto's server cannot do."""
    system: Any = {"MessageGroupId": "customer-1", "MessageDeduplicationId": dedup_id}
    raw: Any = {"MessageId": "m-1", "ReceiptHandle": "r", "Body": "{}", "Attributes": system}
    assert open_message(raw, "orders.fifo", dedup_by_group=by_group).place == place


async def test_notifications_of_sns_are_unwrapped(cloud: Cloud) -> None:
    sns = cloud.aws.client("sns")
    topic = sns.create_topic(Name="notes")["TopicArn"]
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:notes"
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    message_id = sns.publish(TopicArn=topic, BrokerMessage='{"text": "plain"}', Subject="greeting")["MessageId"]
    (note,) = await cloud.events("/notes", 1)
    assert note["event"]["id"] == message_id
    assert note["event"]["subject"] == "greeting"
    assert note["event"]["data"] == {"text": "plain"}
    whole = event("t.sns", {"n": 1}, source="/sns")
    attributes = {"content-type": {"DataType": "String", "StringValue": STRUCTURED}}
    sns.publish(TopicArn=topic, BrokerMessage=json.dumps(whole), MessageAttributes=attributes)
    (accepted,) = await cloud.events("/sns", 1)
    assert accepted["event"]["id"] == whole["id"]


async def test_events_of_eventbridge_come_through_a_queue(cloud: Cloud) -> None:
    envelope = {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "customer.created",
        "source": "com.example.crm",
        "account": ACCOUNT,
        "time": "2026-11-22T10:00:00Z",
        "region": REGION,
        "resources": ["arn:x"],
        "detail": {"id": "12345"},
    }
    for _ in range(2):
        cloud.send("notes", json.dumps(envelope))
    (accepted,) = await cloud.events("com.example.crm", 1)
    assert accepted["event"]["id"] == envelope["id"]
    assert accepted["event"]["type"] == "customer.created"
    assert accepted["event"]["data"] == {"id": "12345"}
    assert accepted["event"]["awsaccount"] == ACCOUNT


async def test_what_a_queue_never_takes_is_a_dead_letter_and_the_next_goes_out(cloud: Cloud) -> None:
    large = [event("to.small", {"text": "x" * 3_000}) for _ in range(3)]
    small = [event("to.small", {"n": number}) for number in range(12)]
    ids = [await published(cloud.stack.http, one) for one in (*large, *small)]
    got = await cloud.got("small", 12)
    assert sorted(json.loads(one["Body"])["data"]["n"] for one in got) == list(range(12))
    letters = (await cloud.stack.http.get(LETTERS, params={"limit": 100})).json()["items"]
    for refused in ids[:3]:
        (letter,) = [one for one in letters if refused in json.dumps(one)]
        assert "the queue small takes 2,048" in json.dumps(letter)


async def test_a_large_message_goes_out_as_a_pointer_into_the_bucket(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", cloud.aws.url)
    s3 = cloud.aws.client("s3")
    s3.create_bucket(Bucket="payloads", CreateBucketConfiguration={"LocationConstraint": REGION})
    transport = SqsTransport([], ["small"], "payloads")
    await transport.start(no_message)
    try:
        for form in MessageFormat:
            more = dict.fromkeys(("correlationid", "outcome", "causationid", "subject"), "x")
            sent = event_from_json(event("to.small", {"text": "ä" * 2_000}, traceparent=TRACEPARENT, **more))
            await transport.publish(sent, OutboundRoute(broker="aws", to="small", task_queue="", format=form))
            (message,) = cloud.received("small")
            name, pointer = json.loads(message["Body"])
            assert name == "software.amazon.payloadoffloading.PayloadS3Pointer"
            stored = s3.get_object(Bucket=pointer["s3BucketName"], Key=pointer["s3Key"])["Body"].read()
            assert message["MessageAttributes"]["ExtendedPayloadSize"]["StringValue"] == str(len(stored))
            found = json.loads(stored)
            assert (found if form is MessageFormat.PLAIN else found["data"]) == {"text": "ä" * 2_000}
    finally:
        await transport.stop()


async def no_message(_: BrokerMessage) -> None:
    raise AssertionError("it consumes nothing")


async def test_plain_messages_have_data_and_attributes(cloud: Cloud) -> None:
    sent = event("to.plain", {"total": 12.5}, subject="grüße", source="/plain")
    await published(cloud.stack.http, sent)
    (got,) = await cloud.got("small", 1)
    assert json.loads(got["Body"]) == {"total": 12.5}
    named = {name: one["StringValue"] for name, one in got["MessageAttributes"].items()}
    assert named.items() >= {"id": sent["id"], "type": "to.plain", "source": "/plain", "subject": "grüße"}.items()
    assert named["content-type"] == "application/json"
    assert len(named) <= 10


async def test_events_go_to_a_bus_of_eventbridge(cloud: Cloud) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = event("to.bus", [1, 2], source="/shop", subject="s1", time="2026-11-22T10:00:00Z", traceparent=trace)
    plain = event("to.plain-bus", {"total": 12.5}, source="/shop")
    for one in (sent, plain):
        await published(cloud.stack.http, one)
    got = {one["detail-type"]: one for one in [json.loads(raw["Body"]) for raw in await cloud.got("from-bus", 2)]}
    whole = got["to.bus"]
    assert (whole["source"], whole["resources"], whole["time"]) == ("/shop", ["s1"], "2026-11-22T10:00:00Z")
    assert whole["detail"]["id"] == sent["id"]
    assert whole["detail"]["data"] == [1, 2]
    assert got["to.plain-bus"]["detail"] == {"total": 12.5}


async def test_what_eventbridge_never_takes_is_a_dead_letter(cloud: Cloud) -> None:
    refused = await published(cloud.stack.http, event("to.plain-bus", [1], source="/shop"))
    letters = await dead_letters(cloud.stack.http, refused)
    assert "takes a JSON object only" in json.dumps(letters)


async def test_poison_states_how_often_it_was_received(cloud: Cloud) -> None:
    cloud.send("notes", "no json")
    found = await dead_letters(cloud.stack.http, "its body is not json")
    assert found[0]["reason"].endswith("(delivery 1)")


async def test_held_messages_stay_hidden_and_are_given_back_at_the_end(tmp_path: Path) -> None:
    """Temporal is away for longer than the queue hides a message; then the connector stops."""
    aws = Aws(tmp_path)
    try:
        url = aws.queue("held")
        config = '[brokers.aws]\nkind = "sqs"\n[[brokers.aws.consume]]\nfrom = "held"\n'
        settings = make_settings(tmp_path, more_config=config)

        async def is_at(visible: int, hidden: int) -> bool:
            response = await asyncio.to_thread(
                aws.client("sqs").get_queue_attributes, QueueUrl=url, AttributeNames=["All"]
            )
            counts = [response["Attributes"][f"ApproximateNumberOfMessages{name}"] for name in ("", "NotVisible")]
            return counts == [str(visible), str(hidden)]

        async with AsyncExitStack() as opened:
            async with EmbeddedTemporalOnly(settings) as address:
                connector = opened.enter_context(sevenfold("connect", settings, TEMPORAL_ADDRESS=address))
                await until(lambda: reports(connector, "broker connected"), seconds=60)
            for number in range(3):
                body = json.dumps(event("t.held", {"n": number}, source="/held"))
                aws.client("sqs").send_message(QueueUrl=url, MessageBody=body)
            await until(lambda: is_at(0, 3), seconds=30)
            for _ in range(9):
                await asyncio.sleep(1)
                assert await is_at(0, 3), "no other consumer may get them meanwhile"
            connector.terminate()
            assert await is_at(3, 0)
    finally:
        aws.close()


async def reports(connector: Sevenfold, text: str) -> bool:
    return text in connector.output()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ('kind = "sqs"\nurl = "http://127.0.0.1:1"\n', "sqs has no url"),
        ('kind = "eventbridge"\n[[brokers.aws.consume]]\nfrom = "x"\n', "nothing to consume"),
        ('kind = "sqs"\n', "set AWS_REGION"),
    ],
)
async def test_wrong_configurations_name_what_to_set(tmp_path: Path, config: str, problem: str) -> None:
    settings = make_settings(tmp_path, more_config=f"[brokers.aws]\n{config}")
    async with EmbeddedTemporalOnly(settings) as address:
        env = {"TEMPORAL_ADDRESS": address, "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_REGION": ""}
        with sevenfold("connect", settings, **env) as connector:
            assert await asyncio.to_thread(connector.process.wait, 30) == 2
            assert problem in connector.output()
