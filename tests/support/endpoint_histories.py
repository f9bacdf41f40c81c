"""Scenarios of tests/record_histories.py with stored webhook endpoints."""

import asyncio

from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.webhooks.delivery import delivery_workflow_id, updates_workflow_id
from sevenfold.contracts.webhooks.endpoints import EndpointResult, endpoints_workflow_id
from tests.support.processes import until
from tests.support.receivers import Answer, running_receiver
from tests.support.stack import Stack

ENDPOINTS = "/api/agent/webhooks/endpoints"


async def _create(stack: Stack, url: str, name: str) -> str:
    body = {"name": name, "url": url, "events": ["started", "progress", "completed"]}
    answer = await stack.http.post(ENDPOINTS, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def run_with_updates(stack: Stack, name: str, answers: list[Answer]) -> str:
    """A task whose agent fails once and reports progress; its id, once its updates and its outcome are delivered."""
    async with running_receiver(answers) as receiver:
        endpoint_id = await _create(stack, receiver.url(), name)
        params = {"seconds": 2, "steps": 8, "failures": 1, "failAt": 5}
        body = {"task": "work", "agent": "simulator", "params": params, "webhookEndpoint": name}
        run_id = str((await stack.http.post("/api/agent/tasks", json=body)).json()["taskId"])
        await stack.run_until(run_id, "completed")
        await stack.temporal.get_workflow_handle(updates_workflow_id(f"default:{run_id}")).result()

        async def is_delivered() -> bool:
            return (await stack.run(run_id))["webhook"]["state"] == "delivered"  # type: ignore[index]

        await until(is_delivered, 30)
        await stack.http.delete(f"{ENDPOINTS}/{endpoint_id}")
        return run_id


async def polled_with_updates(stack: Stack) -> str:
    """The run."""
    return await run_with_updates(stack, "polled", [])


async def updates(stack: Stack) -> str:
    """What numbers its deliveries, one of which fails for good."""
    return f"updates:{await run_with_updates(stack, 'updated', [204, 410])}"


async def update_delivered(stack: Stack) -> str:
    """The delivery of its start, which is retried."""
    run_id = await run_with_updates(stack, "retried", [500])
    return parse_public_id(delivery_workflow_id(f"default:{run_id}", update=1))


async def job_with_updates(stack: Stack) -> str:
    """A job of items, which reports its progress itself."""
    async with running_receiver() as receiver:
        endpoint_id = await _create(stack, receiver.url(), "job")
        body = {"task": "work", "agent": "item", "data": {"items": ["a"] * 60}, "concurrency": 60}
        answer = await stack.http.post("/api/agent/jobs", json={**body, "webhookEndpoint": "job"})
        run_id = str(answer.json()["jobId"])
        await stack.run_until(run_id, "completed")
        await stack.temporal.get_workflow_handle(updates_workflow_id(f"default:{run_id}")).result()
        await stack.http.delete(f"{ENDPOINTS}/{endpoint_id}")
        return run_id


async def endpoints(stack: Stack) -> str:
    """The tenant's endpoints, after every change."""
    async with running_receiver([500]) as receiver:
        endpoint_id = await _create(stack, receiver.url(), "changed")
        other = await _create(stack, receiver.url(), "removed")
        path = f"{ENDPOINTS}/{endpoint_id}"
        await stack.http.patch(path, json={"isDefault": True, "agents": ["echo"]})
        await stack.http.patch(f"{ENDPOINTS}/{other}", json={"isDefault": True})
        await stack.http.post(f"{path}/rotate", json={})
        handle = stack.temporal.get_workflow_handle(endpoints_workflow_id("default"))
        for succeeded in (False, False, True, False):
            await handle.signal("record_result", EndpointResult(id=endpoint_id, succeeded=succeeded))
        await stack.http.post(f"{path}/disable")
        for _ in range(2):
            await stack.http.post(f"{path}/test")
        await stack.http.post(f"{path}/disable")
        await stack.http.post(f"{path}/enable")
        for one in (endpoint_id, other):
            await stack.http.delete(f"{ENDPOINTS}/{one}")
        await asyncio.sleep(1)
        return parse_public_id(endpoints_workflow_id("default"))


SCENARIOS = {
    "polling_with_updates": polled_with_updates,
    "queue_with_updates": job_with_updates,
    "webhook_updates": updates,
    "delivery_of_update": update_delivered,
    "webhook_endpoints": endpoints,
}
