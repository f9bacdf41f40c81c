"""Every workflow of a tenant and its activities carry the tenant's fairness key and weight."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowExecutionDescription
from temporalio.worker import Worker

from sevenfold.adapters.temporal.durations import Durations
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.identity import find_tenant, parse_public_id
from sevenfold.contracts.runs.run import Pattern, batch_task_queue
from tests.support.events import EVENTS, LETTERS, SUBSCRIPTIONS, event, wait_until_settled
from tests.support.receivers import SECRET, Receiver, running_receiver
from tests.support.stack import Stack, another_api, running_stack
from tests.support.streams import read, started
from tests.support.tenant_runs import start_run
from tests.support.tenants import TenantKey, client_of, key_config

ACME, ADMIN = TenantKey("acme"), TenantKey("default", ("admin",))
WEIGHT = 2.5

CONFIG = f"""
{{keys}}
[tenants.acme]
weight = {WEIGHT}

[agents.child]
kind = "workflow"
workflow = "Kin"
task_queue = "kin"

[agents.few]
kind = "python"
target = "tests.support.agents:echo"
max_concurrency = 2
"""


@activity.defn
async def tell_priority() -> list[Any]:
    """Its own fairness key, weight and priority."""
    priority = activity.info().priority
    return [priority.fairness_key, priority.fairness_weight, priority.priority_key]


@workflow.defn(sandboxed=False, name="Kin")
class Kin:
    """A workflow agent that returns its own priority, and that of its activity on another task queue."""

    @workflow.run
    async def run(self, request: dict[str, Any]) -> dict[str, Any]:
        own = workflow.info().priority
        of_activity = await workflow.execute_activity(
            tell_priority, task_queue="kin-activities", start_to_close_timeout=timedelta(seconds=10)
        )
        return {
            "response": "",
            "data": {"own": [own.fairness_key, own.fairness_weight, own.priority_key], "activity": of_activity},
        }


@dataclass
class Shop:
    """A product in which the tenant acme works."""

    stack: Stack
    acme: httpx.AsyncClient
    receiver: Receiver

    async def describe_all(self) -> list[WorkflowExecutionDescription]:
        listed = [one async for one in self.stack.temporal.list_workflows("")]
        handle = self.stack.temporal.get_workflow_handle
        return [await handle(one.id, run_id=one.run_id).describe() for one in listed]


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    directory: Path = tmp_path_factory.mktemp("shop")
    config = CONFIG.format(keys=key_config(ACME, ADMIN))
    limits = ("history.maximumSignalsPerExecution=15",)
    async with (
        running_stack(directory, more_config=config, temporal_dynamic_config=limits) as stack,
        Worker(stack.temporal, task_queue="kin", workflows=[Kin]),
        Worker(stack.temporal, task_queue="kin-activities", activities=[tell_priority]),
        running_receiver() as receiver,
        client_of(stack, ACME) as acme,
    ):
        yield Shop(stack, acme, receiver)


async def test_children_and_activities_have_their_run_s_priority(shop: Shop) -> None:
    body = {"query": "hi", "agent": "child", "priority": 2}
    answer = (await shop.acme.post("/api/agent/query", json=body)).json()
    assert answer["data"] == {"own": ["acme", WEIGHT, 2], "activity": ["acme", WEIGHT, 2]}


async def deliveries(shop: Shop, run_id: str, state: str) -> list[str]:
    listed = await shop.acme.get("/api/agent/webhooks/deliveries", params={"run": run_id, "state": state})
    return [one["id"] for one in listed.json()["items"]]


async def settle(shop: Shop) -> None:
    """Runs of all patterns, an ordered reaction that fails and is redriven, deliveries, a long stream."""
    hook = {"webhookUrl": shop.receiver.url("/hook"), "webhookSecret": SECRET}
    choosy = {"filter": {"exact": {"type": "t.choosy"}}, "agent": "choosy", "task": "work", "orderBy": "data.key"}
    await shop.acme.put(f"{SUBSCRIPTIONS}/choosy", json={**choosy, "publishes": "t.chosen", **hook})
    await asyncio.sleep(0.6)
    for path, body in (
        ("query", {"query": "hi", "agent": "few"}),
        ("hybrid", {"task": "work", "agent": "echo"}),
        ("tasks", {"task": "work", "agent": "echo"}),
        ("analyze", {"document": {"text": "some text"}, "agent": "echo", **hook}),
    ):
        answer = await shop.acme.post(f"/api/agent/{path}", json=body)
        assert answer.status_code < 300, answer.text
    for data in ({"key": 1}, {"key": 1, "poison": True}):
        accepted = await shop.acme.post(EVENTS, json=event("t.choosy", data))
        found = await wait_until_settled(shop.acme, accepted.json()["items"][0]["id"])
    dead = found["reactions"][0]["id"]
    assert (await shop.acme.post(f"{LETTERS}/{dead}/redrive")).status_code == 202
    letter = {"specversion": "1.0", "id": "same", "source": "/tests", "type": "t.same"}
    for data in (1, 2):  # the second becomes a dead letter: another event has its id
        await shop.stack.services.event_ingest.accept("acme", CloudEvent(**letter, data=data), "http")
    shop.receiver.by_path["/failing"] = 500
    failing = {"task": "w", "agent": "echo", **hook, "webhookUrl": shop.receiver.url("/failing")}
    run_id = (await shop.acme.post("/api/agent/tasks", json=failing)).json()["taskId"]
    async with asyncio.timeout(20):
        while not (await deliveries(shop, run_id, "exhausted")):
            await asyncio.sleep(0.1)
    (dead_delivery,) = await deliveries(shop, run_id, "exhausted")
    shop.receiver.by_path["/failing"] = 200
    await shop.acme.post(f"/api/agent/webhooks/deliveries/{dead_delivery}/redeliver")
    async with another_api(shop.stack) as api:
        api.http.headers.update(ACME.headers)
        body = {"agent": "simulator", "params": {"seconds": 6, "steps": 60, "text": "x" * 120}}
        await read(api.http, await started(api, **body))


async def test_every_workflow_of_a_tenant_has_its_fairness_key_and_weight(shop: Shop) -> None:
    await settle(shop)
    types = set()
    for one in await shop.describe_all():
        priority = one.raw_description.workflow_execution_info.priority
        tenant = find_tenant(one.id)
        if tenant == "acme":
            types.add(one.workflow_type)
            assert (priority.fairness_key, priority.fairness_weight) == ("acme", WEIGHT), one.id
        else:
            assert priority.fairness_key in ("", tenant), one.id
    expected = {"EventDriven", "EventReaction", "OrderingSemaphore", "SubscriptionRegistry", "RejectedEvent"}
    expected |= {"WebhookDelivery", "EndpointHealth", "StreamSegment", "SynchronousRequest", "Hybrid", "Polling"}
    expected |= {"WebhookCallback", "Streaming"}
    assert types >= expected, expected - types


async def test_weight_of_a_tenant_that_the_api_created_counts_within_a_second(shop: Shop) -> None:
    async with client_of(shop.stack, ADMIN) as admin:
        made = await admin.post("/api/agent/admin/tenants", json={"name": "beta", "weight": 4})
        assert made.status_code == 201, made.text
        await asyncio.sleep(1.1)
    handle = await start_run(shop.stack.temporal, "beta", Pattern.POLLING)
    description = await handle.describe()
    priority = description.raw_description.workflow_execution_info.priority
    assert (priority.fairness_key, priority.fairness_weight) == ("beta", 4)
    assert parse_public_id(handle.id).startswith("task_")


async def test_backlog_of_one_tenant_is_not_in_the_estimate_of_another(tmp_path: Path) -> None:
    """Two slots: one tenant's forty jobs wait, and another's two take turns with them."""
    async with running_stack(tmp_path, max_concurrent_calls=2) as stack:
        queue = batch_task_queue(stack.settings.task_queue)

        async def start(tenant: str, count: int) -> None:
            for _ in range(count):
                job = {"agent": "careful", "params": {"seconds": 0.5}}
                await start_run(stack.temporal, tenant, Pattern.QUEUE, **job)  # type: ignore[arg-type]

        async def backlog(tenant: str) -> float:
            return await Durations(stack.temporal, {}).backlog_seconds(queue, tenant)

        await start("acme", 60)
        await asyncio.sleep(2)
        alone = await backlog("acme")
        assert alone >= 1, "the only tenant waits as long as its oldest job"
        assert await backlog("beta") == 0, "another tenant has nothing that waits"
        await start("beta", 2)
        await asyncio.sleep(0.2)
        assert await backlog("beta") <= alone / 10
        assert await backlog("acme") >= alone
