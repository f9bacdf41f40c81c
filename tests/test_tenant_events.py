"""Two tenants behind one gateway: their broker sources, routes, subscriptions and dead letters stay apart."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.api.components import Components
from sevenfold.api.events.asyncapi import asyncapi
from sevenfold.api.http.problems import ProblemError
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.subscriptions import PutSubscriptionInput, SubscriptionBody
from sevenfold.contracts.identity import build_workflow_id, parse_public_id, parse_tenant
from tests.support.broker_servers import broker_server
from tests.support.processes import until
from tests.support.stack import Stack, components_of, running_stack

CONFIG = """
[tenants.acme]
[tenants.globex]
[tenants.initech]

[brokers.bus]
kind = "redis"
url = "{url}"
[[brokers.bus.consume]]
from = "acme-in"
tenant = "acme"
[[brokers.bus.consume]]
from = "globex-in"
tenant = "globex"
[[brokers.bus.publish]]
filter = {{ exact = {{ type = "order.rated" }} }}
to = "acme-out"
tenants = ["acme"]
[[brokers.bus.publish]]
filter = {{ exact = {{ type = "order.rated" }} }}
to = "default-out"

[[subscriptions]]
name = "rate"
tenant = "acme"
filter = {{ exact = {{ type = "order.placed" }} }}
agent = "echo"
task = "rate"
publishes = "order.rated"
webhook_url = "http://127.0.0.1:9/acme"
webhook_secret_env = "TESTS_ACME_SECRET"

[[subscriptions]]
name = "rate"
tenant = "globex"
filter = {{ exact = {{ type = "order.placed" }} }}
agent = "echo"
task = "rate-differently"
"""


@dataclass
class Tenants:
    """A product with a Redis that both tenants use."""

    stack: Stack
    redis: Redis

    @property
    def ingest(self) -> EventIngest:
        return self.stack.services.event_ingest

    @property
    def components(self) -> Components:
        return components_of(self.stack, self.stack.temporal)

    async def send(self, stream: str, event_id: str, body: bytes | None = None) -> None:
        event = {"specversion": "1.0", "id": event_id, "source": "/shop", "type": "order.placed", "data": {"n": 1}}
        fields: dict[Any, Any] = {"content-type": "application/cloudevents+json"}
        await self.redis.xadd(stream, {**fields, "data": body or json.dumps(event)})

    async def workflows(self, workflow_type: str) -> dict[str, Any]:
        """Descriptions of the workflows of a type, by workflow id."""
        found = self.stack.temporal.list_workflows(f"WorkflowType = '{workflow_type}'")
        return {one.id: one async for one in found}

    async def outbound(self, stream: str) -> list[dict[str, str]]:
        entries = await self.redis.xrange(stream)
        return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]


@pytest.fixture(scope="module")
async def tenants(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tenants]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TESTS_ACME_SECRET", "whsec_of_acme_alone")
        with broker_server("redis", tmp_path_factory.mktemp("redis")) as server:
            directory: Path = tmp_path_factory.mktemp("stack")
            async with running_stack(directory, more_config=CONFIG.format(url=server.url)) as stack:
                redis = Redis.from_url(server.url)
                yield Tenants(stack, redis)
                await redis.aclose()


def order(event_type: str, event_id: str) -> CloudEvent:
    return CloudEvent(specversion="1.0", id=event_id, source="/shop", type=event_type, data={"n": 1})


async def test_message_of_a_broker_belongs_to_the_tenant_of_its_source(tenants: Tenants) -> None:
    """The same event of both sources is two events: neither tenant can make the other's a duplicate."""
    await tenants.send("acme-in", "o-1")
    await tenants.send("globex-in", "o-1")

    async def both_tenants() -> bool:
        return {parse_tenant(one) for one in await tenants.workflows("EventDriven")} >= {"acme", "globex"}

    await until(both_tenants)
    async with asyncio.timeout(20):
        while len(await tenants.workflows("EventReaction")) < 2:
            await asyncio.sleep(0.2)
    found = await tenants.workflows("EventReaction")
    tasks = {parse_tenant(one): found[one].search_attributes["Task"] for one in found}
    assert tasks == {"acme": ["rate"], "globex": ["rate-differently"]}


async def test_message_that_is_no_event_is_a_dead_letter_of_its_source_s_tenant(tenants: Tenants) -> None:
    await tenants.send("globex-in", "", b"{")

    async def rejected() -> bool:
        return bool(await tenants.workflows("RejectedEvent"))

    await until(rejected)
    (letter,) = await tenants.workflows("RejectedEvent")
    assert parse_tenant(letter) == "globex"
    queue = tenants.components.dead_letter_queue

    async def is_dead() -> bool:
        try:
            return bool(await queue.find("globex", parse_public_id(letter)))
        except ProblemError:  # It has just started.
            return False

    await until(is_dead)
    with pytest.raises(ProblemError):
        await queue.find("acme", parse_public_id(letter))


async def test_event_is_published_only_by_routes_of_its_tenant(tenants: Tenants) -> None:
    for tenant in ("acme", "globex", "default"):
        await tenants.ingest.accept(tenant, order("order.rated", f"by-{tenant}"), "http")

    async def published() -> bool:
        return bool(await tenants.redis.exists("default-out")) and len(await tenants.outbound("acme-out")) >= 1

    await until(published)
    await asyncio.sleep(1)  # a wrong route would take as long
    rated = {name: {one["ce_id"] for one in await tenants.outbound(name)} for name in ("acme-out", "default-out")}
    assert {one for one in rated["acme-out"] if one.startswith("by-")} == {"by-acme"}
    assert rated["default-out"] == {"by-default"}


async def test_configured_subscription_is_seen_by_its_tenant_alone(tenants: Tenants) -> None:
    store = tenants.components.subscription_store
    assert [one.task for one in await store.list_all("acme")] == ["rate"]
    assert [one.task for one in await store.list_all("globex")] == ["rate-differently"]
    assert await store.list_all("default") == []
    assert store.configured_for("default") == {}


async def test_configured_name_does_not_block_another_tenant(tenants: Tenants) -> None:
    store = tenants.components.subscription_store
    body = SubscriptionBody.model_validate({"filter": {"exact": {"type": "x"}}, "agent": "echo", "task": "work"})
    with pytest.raises(ProblemError):
        await store.build("acme", body, "rate")
    mine = await store.build("initech", body, "rate")
    assert await store.put("initech", PutSubscriptionInput(subscription=mine, create_only=True))
    assert list(await store.load_stored("initech")) == ["rate"]
    assert list(await store.load_stored("acme")) == []


async def test_secret_of_a_configured_webhook_is_sealed_for_its_tenant(tenants: Tenants) -> None:
    """The reaction unseals it under its own tenant's name, and has a webhook."""
    accepted = await tenants.ingest.accept("acme", order("order.placed", "o-sealed"), "http")
    event_id = build_workflow_id("acme", accepted.event_id)
    result = await asyncio.wait_for(tenants.stack.temporal.get_workflow_handle(event_id).result(), 20)
    assert result["reply"]["data"] == {"reactions": 1}


async def test_asyncapi_shows_only_the_tenant_s_channels(tenants: Tenants) -> None:
    components = tenants.components

    async def channels(tenant: str) -> set[str]:
        answer = await asyncapi("http://gateway", components.brokers, components.subscription_store, tenant)
        document = json.loads(bytes(answer.body))
        assert ("bus" in document["servers"]) is (tenant != "initech")
        return {name for name in document["channels"] if not name.startswith("gateway.")}

    assert await channels("acme") == {"bus.in.acme-in", "bus.out.acme-out"}
    assert await channels("globex") == {"bus.in.globex-in"}
    assert await channels("default") == {"bus.out.default-out"}
    assert await channels("initech") == set()
