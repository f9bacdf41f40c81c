"""`DELETE /admin/tenants/{tenant}?erase=true`: nothing of the tenant stays, everything of the others does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.worker import Worker

from sevenfold.adapters.access.directory import TenantErasingError
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.operations.erasure import TENANT_WORKFLOW_TYPES, erasure_workflow_id
from sevenfold.worker import WORKFLOWS
from tests.support.child_workflows import CLEANED_UP, Child
from tests.support.events import SUBSCRIPTIONS, event
from tests.support.processes import until
from tests.support.receivers import running_receiver
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, running_stack
from tests.support.tenant_data import API, DELETES_SOON, count_executions, fill
from tests.support.tenants import TenantKey, client_of, key_config

ADMIN = TenantKey("ops", ("admin",))
INITECH = TenantKey("initech")
DEFAULT = TenantKey("default")
TENANTS = f"{API}/admin/tenants"

CHILD = """
[agents.child]
kind = "workflow"
workflow = "Child"
task_queue = "children"
"""


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A gateway with keys, and a worker of somebody's workflow agent."""
    config = key_config(ADMIN, INITECH, DEFAULT) + CHILD
    directory = tmp_path_factory.mktemp("erasure")
    async with (
        running_stack(
            directory,
            more_config=config,
            temporal_dynamic_config=DELETES_SOON,
            webhook_schedule=(0, 600),
            grace_seconds=6,
        ) as stack,
        Worker(stack.temporal, task_queue="children", workflows=[Child]),
        client_of(stack, ADMIN) as admin,
    ):
        stack.http.headers.update(admin.headers)
        yield stack


async def create_tenant(admin: httpx.AsyncClient, name: str) -> str:
    """Creates a tenant; returns a key of it."""
    assert (await admin.post(TENANTS, json={"name": name})).status_code == 201
    scopes = ["runs:write", "runs:read", "events:write", "events:read", "webhooks:read", "webhooks:write"]
    return str((await admin.post(f"{TENANTS}/{name}/keys", json={"scopes": scopes})).json()["key"])


async def erase(admin: httpx.AsyncClient, tenant: str) -> str:
    """Requests the erasure; returns the address of its progress."""
    answer = await admin.delete(f"{TENANTS}/{tenant}", params={"erase": True})
    assert answer.status_code == 202, answer.text
    assert answer.json()["phase"] == "cancelling"
    return answer.headers["Location"]


async def until_erased(admin: httpx.AsyncClient, location: str, *, seconds: float = 120) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while (view := (await admin.get(location)).json())["phase"] != "done":
            await asyncio.sleep(0.1)
    return dict(view)


def of(stack: Stack, key: str) -> httpx.AsyncClient:
    client = client_of(stack)
    client.headers["X-API-Key"] = key
    return client


async def test_erased_tenant_leaves_nothing_and_its_neighbour_keeps_everything(gateway: Stack) -> None:
    admin = gateway.http
    keys = {name: await create_tenant(admin, name) for name in ("acme", "acme-2")}
    async with (
        of(gateway, keys["acme"]) as http,
        of(gateway, keys["acme-2"]) as other,
        running_receiver() as receiver,
    ):
        receiver.by_path = {f"/{name}/fails": 500 for name in keys}
        acme, neighbour = await fill("acme", http, receiver), await fill("acme-2", other, receiver)
        before = await neighbour.read_ended()
        await until(lambda: has_ledger(gateway, "acme-2"), 10)  # Usage is written after a few seconds.
        neighbours = await count_executions(gateway.temporal, "acme-2")
        location = await erase(admin, "acme")
        assert location == f"{TENANTS}/acme/erasure"
        await until(lambda: is_refused(http), 3)
        await refuses_changes(admin, location)
        with pytest.raises(TenantErasingError):  # So a broker's messages wait.
            await gateway.services.event_ingest.accept("acme", CloudEvent.model_validate(event("t.late")), "main")
        view = await until_erased(admin, location)
        assert view["terminated"] == 0, "everything ended by itself"
        assert view["cancelled"] >= len(acme.open)
        assert view["removedHistories"] > len(acme.workflow_ids)
        assert view["removedPayloads"] >= 1
        assert (view["removedKeys"], view["configuredKeys"]) == (1, 0)
        assert {one["what"] for one in view["left"]} == {
            "record of this erasure",
            "changes of the tenant and its keys",
            "refused duplicates",
        }
        await nothing_is_left(gateway, acme.workflow_ids, acme.planted)
        assert await is_refused(http)
        assert (await admin.get(f"{TENANTS}/acme")).status_code == 404
        assert await neighbour.read_ended() == before
        assert await neighbour.statuses(neighbour.open) == {"processing"}
        assert {one["name"] for one in (await other.get(SUBSCRIPTIONS)).json()["items"]} == {"quick", "ordered"}
        assert await count_executions(gateway.temporal, "acme-2") == neighbours
        assert receiver.at("/acme/never") == []
    await starts_afresh(gateway, "acme")


async def has_ledger(gateway: Stack, tenant: str) -> bool:
    ledgers = f"WorkflowType = 'UsageLedger' AND WorkflowId STARTS_WITH '{tenant}:'"
    return (await gateway.temporal.count_workflows(ledgers)).count == 1


async def is_refused(http: httpx.AsyncClient) -> bool:
    return (await http.get(f"{API}/runs")).status_code == 401


async def refuses_changes(admin: httpx.AsyncClient, location: str) -> None:
    """While it runs: the name is not free, and another request joins."""
    tenant = location.removesuffix("/erasure")
    name = tenant.rpartition("/")[2]
    for answer in (
        await admin.post(TENANTS, json={"name": name}),
        await admin.put(tenant, json={}),
        await admin.delete(tenant),
        await admin.post(f"{tenant}/keys", json={"scopes": ["runs:read"]}),
    ):
        assert answer.json()["type"] == "/problems/tenant-erased", answer.text
    assert (await admin.get(tenant)).json()["isErasing"]
    first = (await admin.get(location)).json()["requestedAt"]
    again = await admin.delete(tenant, params={"erase": True})
    assert (again.status_code, again.headers["Location"]) == (202, location)
    assert again.json()["requestedAt"] == first


async def nothing_is_left(stack: Stack, workflow_ids: list[str], planted: str) -> None:
    tenant = workflow_ids[0].partition(":")[0]
    assert await count_executions(stack.temporal, tenant) == 0
    for workflow_id in (*workflow_ids, f"{tenant}:subscriptions"):
        with pytest.raises(RPCError, match="not found"):
            await stack.temporal.get_workflow_handle(workflow_id).describe()
    payloads = stack.settings.data_dir / "payloads"
    assert not (payloads / "tenants" / tenant).exists()
    for path in payloads.rglob("*"):
        assert path.is_dir() or f"{planted}x".encode() not in path.read_bytes()


async def starts_afresh(stack: Stack, name: str) -> None:
    """The name is free again, without the data of before."""
    async with of(stack, await create_tenant(stack.http, name)) as http:
        assert (await http.get(f"{API}/runs")).json()["items"] == []
        assert (await http.get(SUBSCRIPTIONS)).json()["items"] == []
        assert (await http.post(f"{API}/query", json={"query": "hi", "agent": "echo"})).status_code == 200


async def test_configured_tenants_keys_work_again_after_the_erasure(gateway: Stack) -> None:
    for key in (INITECH, DEFAULT):
        async with client_of(gateway, key) as http:
            run_id = (await http.post(f"{API}/query", json={"query": "hi", "agent": "echo"})).json()["queryId"]
            more = await gateway.http.post(f"{TENANTS}/{key.tenant}/keys", json={"scopes": ["runs:read"]})
            assert more.status_code == 201
            assert (await gateway.http.delete(f"{TENANTS}/{key.tenant}")).status_code == 409
            view = await until_erased(gateway.http, await erase(gateway.http, key.tenant))
            assert (view["removedKeys"], view["configuredKeys"]) == (1, 1)
            await until(lambda http=http: is_accepted(http), 3)
            assert (await http.get(f"{API}/runs/{run_id}")).status_code == 404


async def is_accepted(http: httpx.AsyncClient) -> bool:
    return (await http.get(f"{API}/runs")).status_code == 200


async def test_workflow_agents_are_cancelled_by_their_runs_and_reported_if_they_stay(gateway: Stack) -> None:
    async with of(gateway, await create_tenant(gateway.http, "globex")) as http:
        runs = {}
        for do in ("wait", "stay"):
            body = {"agent": "child", "query": "hi", "params": {"do": do, "seconds": 20}}
            answer = await http.post(f"{API}/query", json=body, headers={"Prefer": "wait=1"})
            runs[do] = answer.json()["queryId"]
        location = await erase(gateway.http, "globex")
        view = await until_erased(gateway.http, location)
    assert runs["wait"] in CLEANED_UP
    left = {one["what"]: one for one in view["left"]}
    assert left["workflows of agents"]["count"] == 1
    stays = gateway.temporal.get_workflow_handle(f"globex:{runs['stay']}/1")
    assert (await stays.describe()).status is WorkflowExecutionStatus.RUNNING
    # Repeated when it has ended, the erasure finds the rest, though the tenant is gone.
    assert await stays.result() == {"response": "stayed"}
    assert (await gateway.http.delete(f"{TENANTS}/globex", params={"erase": True})).status_code == 202
    await until_erased(gateway.http, location)
    assert await count_executions(gateway.temporal, "globex") == 0


async def test_data_of_a_tenant_that_was_removed_before_are_erased(gateway: Stack) -> None:
    async with of(gateway, await create_tenant(gateway.http, "hooli")) as http:
        assert (await http.post(f"{API}/query", json={"query": "hi", "agent": "echo"})).status_code == 200
    assert (await gateway.http.delete(f"{TENANTS}/hooli")).status_code == 204
    view = await until_erased(gateway.http, await erase(gateway.http, "hooli"))
    assert view["removedHistories"] == 1
    assert (await gateway.http.delete(f"{TENANTS}/hooli", params={"erase": True})).status_code == 404


async def test_unknown_tenants_and_erasures_are_404(gateway: Stack) -> None:
    assert (await gateway.http.delete(f"{TENANTS}/nobody", params={"erase": True})).status_code == 404
    assert (await gateway.http.get(f"{TENANTS}/nobody/erasure")).status_code == 404
    async with client_of(gateway, INITECH) as http:
        assert (await http.get(f"{TENANTS}/initech/erasure")).status_code == 403


async def test_erasure_that_an_operator_terminated_can_be_repeated(gateway: Stack) -> None:
    await create_tenant(gateway.http, "umbrella")
    location = await erase(gateway.http, "umbrella")
    await gateway.temporal.get_workflow_handle(erasure_workflow_id("umbrella")).terminate()
    assert (await gateway.http.get(location)).json()["phase"] == "stopped"
    assert await erase(gateway.http, "umbrella") == location
    await until_erased(gateway.http, location)


async def test_streams_in_redis_are_removed(tmp_path: Path, redis: RedisServer) -> None:
    changes: dict[str, Any] = {"redis_url": redis.url, "temporal_dynamic_config": DELETES_SOON}
    async with (
        running_stack(tmp_path, more_config=key_config(ADMIN), **changes) as stack,
        client_of(stack, ADMIN) as admin,
    ):
        for name in ("acme", "acme-2"):
            async with of(stack, await create_tenant(admin, name)) as http:
                body = {"query": "hi", "agent": "careful", "params": {"seconds": 0.5}}
                assert (await http.post(f"{API}/stream", json=body)).status_code == 200
        view = await until_erased(admin, await erase(admin, "acme"))
        assert view["removedStreams"] == 1
    async with Redis.from_url(redis.url) as client:
        keys = [key.decode() async for key in client.scan_iter()]
    assert [key.split(":")[3] for key in keys] == ["acme-2"]


def test_every_workflow_type_belongs_to_tenants_or_is_known_not_to() -> None:
    """A new workflow type that the erasure does not know fails here."""
    registered = {str(workflow.__temporal_workflow_definition.name) for workflow in WORKFLOWS}  # type: ignore[attr-defined]
    shared = {"CircuitBreaker", "AgentLimits", "TenantRegistry", "TenantErasure", "PayloadCleanup"}
    assert registered - shared == set(TENANT_WORKFLOW_TYPES)
