"""Messages of brokers start runs, whose outcomes are replies."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import nats
import pytest
from aio_pika.patterns import JsonRPC
from aio_pika.patterns.rpc import JsonRPCError
from nats.js.errors import NotFoundError
from pydantic import ValidationError
from temporalio.client import Client as Temporal
from temporalio.contrib.pydantic import pydantic_data_converter

from sevenfold.activities.events.replies import build_reply
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.interface import Reply
from sevenfold.contracts.config.brokers import ConsumeConfig
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.contracts.identity import new_id
from sevenfold.contracts.runs.message_runs import ReplyAddress, ReplyInput
from sevenfold.contracts.runs.run import RunError, RunOutcome, RunResult, RunStatus
from tests.support.broker_clients import INBOUND, OUTBOUND, Client, Got, client_of
from tests.support.broker_servers import KINDS, broker_section, broker_server
from tests.support.events import EVENTS, dead_letters
from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.stack import Stack, make_settings, running_stack, sevenfold

RPC_QUEUE, ANALYSES, QUESTIONS, EVENTS_QUEUE = "answer", "documents", "questions", "just-events"


def configuration(urls: dict[str, str]) -> str:
    parts = []
    for kind, url in urls.items():
        parts.append(
            f"{broker_section(kind, url)}"
            f'[[brokers.{kind}.consume]]\nfrom = "{INBOUND}"\nreply_to = "{OUTBOUND}"\n'
            'start = { pattern = "queue", agent = "clerk", task = "file", from = "/payload", id = "$body/id" }\n'
            'reply = { map = { text = "$reply/result/given/text", status = "$reply/status", kind = "reply" } }\n'
        )
    parts.append(
        f'[[brokers.rabbitmq.consume]]\nfrom = "{RPC_QUEUE}"\n'
        'start = { pattern = "polling", agent = "clerk", task = "answer" }\nreply = { format = "plain" }\n'
        f'[[brokers.rabbitmq.consume]]\nfrom = "{ANALYSES}"\nreply_to = "$headers/answer-to"\n'
        'start = { pattern = "analyze", agent = "clerk", format = "text" }\n'
        f'[[brokers.rabbitmq.consume]]\nfrom = "{EVENTS_QUEUE}"\nconcurrency = 1\n'
        f'[[brokers.rabbitmq.consume]]\nfrom = "{QUESTIONS}"\nreply = {{}}\n'
        'start = { pattern = "hybrid", agent = "clerk", format = "text" }\n'
        '[[brokers.nats.publish]]\nfilter = { exact = { source = "/sevenfold/replies", type = "run.completed" } }\n'
        'to = "routed-replies"\n'
        '[[brokers.nats.consume]]\nfrom = "few-work"\ntenant = "few"\n'
        'start = { pattern = "polling", agent = "simulator", task = "work" }\n'
        "[tenants.few]\nopen_runs = 2\nqueued_items = 5\n"
        '[[brokers.nats.consume]]\nfrom = "few-jobs"\ntenant = "few"\nconcurrency = 1\n'
        'start = { pattern = "queue", agent = "clerk", task = "file" }\n'
    )
    return "\n".join(parts)


@dataclass
class Office:
    """A product whose consumers start runs, and a client of each broker."""

    stack: Stack
    clients: dict[str, Client]
    urls: dict[str, str]

    async def send(self, kind: str, body: bytes, **headers: str) -> None:
        await self.clients[kind].send(headers, "application/json", body)

    async def got(self, kind: str, count: int) -> list[Got]:
        found: list[Got] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                with suppress(NotFoundError):  # NATS has no stream before the first message.
                    found += await self.clients[kind].got()
                await asyncio.sleep(0.1)
        return found

    async def runs(self, pattern: str) -> list[dict[str, Any]]:
        page = (await self.stack.http.get("/api/agent/runs", params={"pattern": pattern, "limit": 100})).json()
        return list(page["items"])

    async def letters(self, containing: str) -> list[dict[str, Any]]:
        return await dead_letters(self.stack.http, containing)

    async def send_to_queue(self, queue: str, body: bytes, **properties: Any) -> None:
        """Sends to a queue of RabbitMQ."""
        async with rabbitmq_channel(self.urls["rabbitmq"]) as channel:
            await channel.default_exchange.publish(aio_pika.Message(body, **properties), routing_key=queue)


@asynccontextmanager
async def rabbitmq_channel(url: str) -> AsyncIterator[Any]:
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        yield channel


@pytest.fixture(scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    async with AsyncExitStack() as opened:
        urls = {
            kind: opened.enter_context(broker_server(kind, tmp_path_factory.mktemp(kind), INBOUND, OUTBOUND)).url
            for kind in KINDS
        }
        directory: Path = tmp_path_factory.mktemp("office")
        stack = await opened.enter_async_context(running_stack(directory, more_config=configuration(urls)))
        clients = {kind: await opened.enter_async_context(client_of(kind, url)) for kind, url in urls.items()}
        for client in clients.values():
            await until(client.ready, seconds=60)
            client.read_prefix = ""
        await until(lambda: has_queues(urls["rabbitmq"]), seconds=60)
        yield Office(stack, clients, urls)


async def has_queues(url: str) -> bool:
    """Whether RabbitMQ has the queues: a message to one that is missing is dropped."""
    connection = await aio_pika.connect(url)
    async with connection:
        for name in (RPC_QUEUE, ANALYSES, QUESTIONS, EVENTS_QUEUE):
            try:
                async with connection.channel() as channel:
                    await channel.declare_queue(name, passive=True)
            except aio_pika.exceptions.AMQPException:
                return False
    return True


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_starts_one_run_and_gets_its_reply(office: Office, kind: str) -> None:
    work = {"id": f"w-{kind}", "payload": {"text": f"grüße {kind}"}}
    for _ in range(3):
        await office.send(kind, json.dumps(work).encode(), **{"correlation-id": f"c-{kind}"})
    (reply,) = await office.got(kind, 1)
    assert json.loads(reply.body) == {"text": f"grüße {kind}", "status": "completed", "kind": "reply"}
    assert reply.attributes["outcome"] == "result"
    assert reply.attributes["correlationid"] == f"c-{kind}"
    (run,) = [one for one in await office.runs("queue") if one["id"] == reply.attributes["subject"]]
    assert (run["status"], run["agent"], run["task"]) == ("completed", "clerk", "file")
    await until(lambda: nothing_left(office, kind), seconds=60)
    assert await office.clients[kind].got() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_failures_are_replies_and_poison_is_a_dead_letter(office: Office, kind: str) -> None:
    refused = {"id": f"r-{kind}", "payload": {"refuse": True}}
    await office.send(kind, json.dumps(refused).encode())
    await office.send(kind, json.dumps({"id": f"p-{kind}", "other": 1}).encode(), note=kind)
    (reply,) = await office.got(kind, 1)
    assert reply.attributes["outcome"] == "error"
    body = json.loads(reply.body)
    assert body["status"] == "failed"
    assert body["error"]["detail"] == "The clerk refuses."
    letters = [one for one in await office.letters("nothing there") if one["via"] == kind]
    assert "/payload" in letters[0]["reason"]
    await until(lambda: nothing_left(office, kind), seconds=60)


async def nothing_left(office: Office, kind: str) -> bool:
    return await office.clients[kind].left() == 0


async def test_a_stock_client_calls_an_agent_as_a_remote_procedure(office: Office) -> None:
    async with rabbitmq_channel(office.urls["rabbitmq"]) as channel:
        rpc = await JsonRPC.create(channel)
        answers = await asyncio.gather(*(rpc.call(RPC_QUEUE, kwargs={"number": number}) for number in range(5)))
        assert [one["data"]["given"] for one in answers] == [{"number": number} for number in range(5)]
        assert {one["response"] for one in answers} == {"seen: answer"}
        with pytest.raises(JsonRPCError) as refusal:
            await rpc.call(RPC_QUEUE, kwargs={"refuse": True})
        assert "The clerk refuses." in str(refusal.value.args)
        await rpc.close()


async def test_the_reply_to_a_client_that_has_gone_is_a_dead_letter(office: Office) -> None:
    gone = {"reply_to": "gone/for-good", "correlation_id": "c-gone", "message_id": "gone-1"}
    await office.send_to_queue(RPC_QUEUE, b"{}", **gone)
    (letter,) = await office.letters("gone/for-good")
    assert "The client that expects the reply has gone" in json.dumps(letter)


async def test_another_message_with_the_same_id_is_a_dead_letter(office: Office) -> None:
    for text in ("first", "first", "second"):
        await office.send("nats", json.dumps({"id": "same", "payload": {"text": text}}).encode())
    (letter,) = await office.letters("another message with this id")
    assert letter["via"] == "nats"
    (reply,) = await office.got("nats", 1)
    assert json.loads(reply.body)["text"] == "first"


async def test_text_that_is_no_unicode_is_a_dead_letter_and_a_422(office: Office) -> None:
    """UTF-7 can hold half a character."""
    attributes = {"specversion": "1.0", "id": "half", "source": "/half", "type": "t"}
    headers = {f"cloudEvents:{name}": value for name, value in attributes.items()}
    await office.send_to_queue(EVENTS_QUEUE, b"+2AA-", headers=headers, content_type="text/plain; charset=utf-7")
    assert [one["via"] for one in await office.letters("not valid Unicode")] == ["rabbitmq"]
    as_http = {f"ce-{name}": value for name, value in attributes.items()}
    as_http["content-type"] = "text/plain; charset=utf-7"
    assert (await office.stack.http.post(EVENTS, headers=as_http, content=b"+2AA-")).status_code == 422


@pytest.mark.parametrize(
    ("reply_to", "correlation_id"), [("x" * 300, None), ("a\nb", None), ("fine", "c\x00d"), ("fine", "é" * 3_000)]
)
async def test_addresses_that_cannot_be_are_dead_letters(
    office: Office, reply_to: str, correlation_id: str | None
) -> None:
    named = {"answer-to": reply_to, "correlation-id": correlation_id}
    headers = {name: value for name, value in named.items() if value is not None}
    await office.send_to_queue(ANALYSES, f"{named}".encode(), headers=headers)
    what = "its correlation id" if correlation_id else "the address of its reply"
    assert await office.letters(what)


async def test_text_is_analysed_and_answered_at_the_address_in_a_header(office: Office) -> None:
    async with rabbitmq_channel(office.urls["rabbitmq"]) as channel:
        await channel.declare_queue("analyses-out", durable=True)
        await office.send_to_queue(ANALYSES, b"A text.", headers={"answer-to": "analyses-out"}, message_id="doc-1")
        queue = await channel.declare_queue("analyses-out", durable=True)
        async with queue.iterator(timeout=30) as messages:
            async for got in messages:
                await got.ack()
                break
        assert got.type == "result"
        assert got.headers["cloudEvents_type"] == "run.completed"
        assert json.loads(got.body)["result"]["data"]["given"]["document"]["text"] == "A text."


async def test_without_an_address_the_outcome_is_an_event_for_the_routes(office: Office) -> None:
    await office.send_to_queue(QUESTIONS, b"How many?", message_id="question-1")
    async with asyncio.timeout(30):
        while True:
            page = (await office.stack.http.get(EVENTS, params={"source": "/sevenfold/replies", "limit": 100})).json()
            found = [one for one in page["items"] if "seen: How many?" in json.dumps(one)]
            if found:
                break
            await asyncio.sleep(0.1)
    (answered,) = found
    assert answered["event"]["type"] == "run.completed"
    assert answered["event"]["data"]["hybridId"] == answered["event"]["subject"]


async def test_messages_wait_for_the_quota_of_their_tenant(office: Office) -> None:
    client = await nats.connect(office.urls["nats"])
    for _ in range(6):
        await client.jetstream().publish("few-work", json.dumps({"seconds": 1}).encode())
    await client.close()
    query = "WorkflowType = 'Polling' AND Tenant = 'few'"
    most = done = 0
    async with asyncio.timeout(90):
        while done < 6:
            running = (await office.stack.temporal.count_workflows(f"{query} AND ExecutionStatus = 'Running'")).count
            done = (await office.stack.temporal.count_workflows(f"{query} AND ExecutionStatus = 'Completed'")).count
            most = max(most, running)
            await asyncio.sleep(0.1)
    assert most <= 2


async def test_a_job_that_no_quota_ever_takes_is_a_dead_letter(office: Office) -> None:
    client = await nats.connect(office.urls["nats"])
    for items in (list(range(9)), [1, 2]):
        await client.jetstream().publish("few-jobs", json.dumps(items).encode())
    await client.close()
    query = "WorkflowType = 'AsynchronousQueue' AND Tenant = 'few' AND ExecutionStatus = 'Completed'"

    async def is_done() -> bool:
        return (await office.stack.temporal.count_workflows(query)).count == 1

    await until(is_done, seconds=60)


async def test_a_consumer_takes_nothing_more_while_its_queue_is_full(tmp_path: Path) -> None:
    with broker_server("nats", tmp_path / "nats") as server:
        config = (
            f"{broker_section('nats', server.url)}"
            f'[[brokers.nats.consume]]\nfrom = "{INBOUND}"\nconcurrency = 2\nmax_backlog = 3\n'
            'start = { pattern = "queue", agent = "clerk", task = "file" }\n'
        )
        settings = make_settings(tmp_path, more_config=config)
        async with EmbeddedTemporalOnly(settings) as address, client_of("nats", server.url) as client:
            temporal = await Temporal.connect(address, data_converter=pydantic_data_converter)

            async def count() -> int:
                return (await temporal.count_workflows("WorkflowType = 'AsynchronousQueue'")).count

            with sevenfold("connect", settings, TEMPORAL_ADDRESS=address) as connector:
                await until(client.ready, seconds=60)
                await send(client, range(10))
                await until(lambda: reached(count, 10), seconds=30)
                await asyncio.sleep(7)  # Temporal's statistics are up to 5 s old.
                await send(client, range(10, 30))
                await until(lambda: has_logged(connector.output, "the queue of what it starts is full"), seconds=30)
                await asyncio.sleep(4)
                assert await count() == 10, "nothing is started while no worker takes the runs"
                with sevenfold("worker", settings, TEMPORAL_ADDRESS=address):
                    await until(lambda: reached(count, 30), seconds=60)
                    await until(lambda: left(client, 0), seconds=30)


async def send(client: Client, numbers: range) -> None:
    for number in numbers:
        await client.send({}, "application/json", json.dumps({"n": number}).encode())


async def has_logged(output: Any, text: str) -> bool:
    return text in output()


async def reached(count: Any, number: int) -> bool:
    return await count() == number


async def left(client: Client, number: int) -> bool:
    return await client.left() == number


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"start": {"pattern": "queue"}}, "task is missing"),
        ({"start": {"pattern": "stream", "task": "t"}}, "'queue', 'polling', 'analyze' or 'hybrid'"),
        ({"start": {"pattern": "hybrid", "format": "bytes"}}, "json or text"),
        ({"start": {"pattern": "hybrid", "from": "payload"}}, "from"),
        ({"start": {"pattern": "hybrid"}, "map": {"type": "t", "source": "s"}}, "either map or start"),
        ({"reply_to": "out"}, "belong to start"),
        ({"start": {"pattern": "hybrid"}, "reply": {"map": {"a": "$replyy"}}}, "begins like a reference"),
    ],
)
def test_wrong_configurations_name_the_mistake(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        ConsumeConfig.model_validate({"from": "q", **more})
    assert problem in str(refusal.value)


def test_a_start_names_a_configured_agent() -> None:
    consume = {"from": "q", "start": {"pattern": "hybrid", "agent": "nobody"}}
    with pytest.raises(ValidationError, match="there is no agent nobody"):
        SevenfoldConfig.model_validate({"brokers": {"b": {"kind": "sqs", "consume": [consume]}}})


COMPLETED = RunOutcome(
    RunStatus.COMPLETED, result=RunResult(reply=Reply(response="yes", data={"a": [1]}), duration_seconds=1)
)
FAILED = RunOutcome(RunStatus.FAILED, error=RunError(code=ErrorCode.AGENT_REJECTED, detail="no"))
CANCELLED = RunOutcome(RunStatus.CANCELLED)


@pytest.mark.parametrize(
    ("outcome", "reply_map", "expected"),
    [
        (COMPLETED, None, {"response": "yes", "data": {"a": [1]}}),
        (COMPLETED, {"x": "$reply/result/data/a/0", "y": "$reply/none", "z": "z"}, {"x": 1, "z": "z"}),
        (FAILED, None, {"status": "failed", "error": {"detail": "no"}}),
        (FAILED, {"x": "$reply/result/response"}, {"error": {"detail": "no"}}),
        (FAILED, {"why": "$reply/error/detail"}, {"why": "no"}),
        (CANCELLED, {"x": "$reply/result/response"}, {"error": {"status": "cancelled"}}),
        (CANCELLED, {"why": "$reply/error/detail"}, {"error": {"status": "cancelled"}}),
    ],
)
def test_plain_replies_hold_the_result_the_error_or_what_the_map_makes(
    outcome: RunOutcome, reply_map: dict[str, str] | None, expected: dict[str, Any]
) -> None:
    run_id = new_id("task")
    address = ReplyAddress(broker="b", task_queue="q", to="out", correlation_id="c", is_plain=True, map=reply_map)
    event = build_reply(run_id, ReplyInput(run_workflow_id=f"default:{run_id}", address=address), outcome)
    assert isinstance(event.data, dict)
    assert {name: pick(event.data.get(name), value) for name, value in expected.items()} == expected
    assert (event.id, event.type, event.attribute("correlationid")) == (run_id, f"run.{outcome.status}", "c")


def test_a_result_that_no_event_can_hold_is_an_error() -> None:
    run_id = new_id("task")
    large = RunOutcome(
        RunStatus.COMPLETED, result=RunResult(reply=Reply(response="x" * 1_100_000), duration_seconds=1)
    )
    address = ReplyAddress(broker="b", task_queue="q", to="out")
    event = build_reply(run_id, ReplyInput(run_workflow_id=f"default:{run_id}", address=address), large)
    assert (event.attribute("outcome"), event.type) == ("error", "run.completed")
    assert f"Read the run {run_id}" in json.dumps(event.data)


def pick(found: Any, expected: Any) -> Any:
    """The members that are expected."""
    return (
        {name: found[name] for name in expected} if isinstance(expected, dict) and isinstance(found, dict) else found
    )
