"""Every entity workflow keeps its state when it continues as new, here after 60 history events."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from sevenfold.contracts.access.api_keys import generate_key
from sevenfold.contracts.access.principals import Scope
from sevenfold.contracts.access.tenant_registry import (
    REGISTRY_WORKFLOW_ID,
    KeyRecord,
    LastUse,
    PutKeyInput,
    PutTenantInput,
    TenantRecord,
    TenantRegistryState,
)
from sevenfold.contracts.agents.circuits import CIRCUIT_MEMO, OpenCircuit, circuit_workflow_id
from sevenfold.contracts.agents.limits import LeaseGrant, LeaseRequest, Limits, limits_workflow_id
from sevenfold.contracts.agents.usage import DayUsage, UsageFlush, UsageTotals, ledger_workflow_id
from sevenfold.contracts.events.event_driven import ordering_workflow_id
from sevenfold.contracts.events.subscriptions import registry_workflow_id
from sevenfold.contracts.webhooks.delivery import ENDPOINT_MEMO, EndpointState
from sevenfold.contracts.webhooks.endpoints import endpoints_workflow_id
from tests.support.agents import SEEN
from tests.support.endpoint_histories import ENDPOINTS
from tests.support.endpoints import start_paused_endpoint
from tests.support.events import EVENTS, SUBSCRIPTIONS, event, subscribed
from tests.support.processes import until
from tests.support.stack import Stack, running_stack

HISTORY_LIMIT = "limit.historyCount.suggestContinueAsNew=60"
LIMITS = Limits(max_concurrency=4)
AGENTS = """
[agents.mendable]
kind = "python"
target = "tests.support.agents:mendable"
circuit = {minimum_calls = 2, open_seconds = 0.5, max_open_seconds = 0.5}

[agents.few]
kind = "python"
target = "tests.support.agents:echo"
max_concurrency = 4
"""
TERMS: dict[str, Any] = {"filter": {"exact": {"type": "t.terms"}}, "agent": "echo", "task": "work"}


@pytest.fixture(scope="module")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A product over a server with a small history limit."""
    directory = tmp_path_factory.mktemp("small-histories")
    async with running_stack(directory, more_config=AGENTS, temporal_dynamic_config=(HISTORY_LIMIT,)) as stack:
        yield stack


async def current_run(handle: WorkflowHandle[Any, Any]) -> str:
    """The run id of the workflow's latest run."""
    return str((await handle.describe()).run_id)


async def test_subscription_registry_keeps_its_subscriptions_over_continue_as_new(small: Stack) -> None:
    await small.http.put(f"{SUBSCRIPTIONS}/stays", json=TERMS)
    handle = small.temporal.get_workflow_handle(registry_workflow_id("default"))
    first = await current_run(handle)
    number = 0
    async with asyncio.timeout(60):
        while await current_run(handle) == first:
            number += 1
            changed = {**TERMS, "params": {"n": number}}
            assert (await small.http.put(f"{SUBSCRIPTIONS}/changes", json=changed)).status_code in (200, 201)
    listed = {one["name"]: one for one in (await small.http.get(SUBSCRIPTIONS)).json()["items"]}
    assert listed["stays"]["task"] == "work"
    assert listed["changes"]["params"] == {"n": number}
    for name in ("stays", "changes"):
        assert (await small.http.delete(f"{SUBSCRIPTIONS}/{name}")).status_code == 204


async def test_a_usage_ledger_keeps_its_days_over_continue_as_new(small: Stack) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    ledgers = small.services.quotas.ledgers
    handle = small.temporal.get_workflow_handle(ledger_workflow_id("default", month))
    day = f"{month}-01"
    used = DayUsage(agents={"a": UsageTotals(calls=1)})
    flush = UsageFlush(process="test", sequence=1, days={day: used})
    await ledgers.record("default", month, flush)
    first = await current_run(handle)
    async with asyncio.timeout(60):
        while await current_run(handle) == first:
            flush = flush.model_copy(update={"sequence": flush.sequence + 1})
            await ledgers.record("default", month, flush)
    await ledgers.record("default", month, flush)  # The new run knows it too.

    async def is_complete() -> bool:
        found = await ledgers.read_days("default", date.fromisoformat(day), date.fromisoformat(day))
        return found.get(day, used).agents["a"].calls == flush.sequence

    await until(is_complete, 20)


async def test_webhook_endpoints_keep_all_over_continue_as_new(small: Stack) -> None:
    created = (await small.http.post(ENDPOINTS, json={"name": "stays", "url": "https://example.com/a"})).json()
    path = f"{ENDPOINTS}/{created['id']}"
    await small.http.post(f"{path}/rotate", json={})
    await small.http.post(f"{path}/disable")
    handle = small.temporal.get_workflow_handle(endpoints_workflow_id("default"))
    first = await current_run(handle)
    number = 0
    async with asyncio.timeout(60):
        while await current_run(handle) == first:
            number += 1
            url = f"https://example.com/{number}"
            assert (await small.http.patch(path, json={"url": url})).status_code == 200
    seen = (await small.http.get(path)).json()
    assert seen["url"] == f"https://example.com/{number}"
    assert seen["disabled"]["reason"] == "It was disabled by hand."
    assert len(seen["secrets"]) == 2
    before = await current_run(handle)
    await handle.signal("renew")
    async with asyncio.timeout(20):
        while await current_run(handle) == before:
            await asyncio.sleep(0.05)
    assert (await small.http.post(f"{path}/enable")).json() == {**_without_statistics(seen), "disabled": None}
    assert (await small.http.delete(path)).status_code == 204


def _without_statistics(endpoint: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in endpoint.items() if name != "statistics"}


async def test_tenant_registry_keeps_tenants_keys_and_uses_over_continue_as_new(small: Stack) -> None:
    registry, now = small.services.access.registry, datetime.now(UTC)
    acme = TenantRecord(name="acme", agents=["echo"], weight=2.0, created_at=now)
    await registry.put_tenant(PutTenantInput(tenant=acme))
    key = KeyRecord(id="a" * 12, tenant="acme", hash=generate_key().hash, scopes=[Scope.RUNS_READ], created_at=now)
    await registry.put_key(PutKeyInput(key=key))
    await registry.put_tenant(PutTenantInput(tenant=acme.model_copy(update={"name": "gone"})))
    await registry.put_key(PutKeyInput(key=key.model_copy(update={"id": "b" * 12, "tenant": "gone"})))
    await registry.remove_tenant("gone")
    handle = small.temporal.get_workflow_handle(REGISTRY_WORKFLOW_ID)
    first = await current_run(handle)
    minutes = 0
    async with asyncio.timeout(60):
        while await current_run(handle) == first:
            minutes += 1
            await registry.record_use(LastUse(keys={key.id: now + timedelta(minutes=minutes)}))
            await registry.put_tenant(PutTenantInput(tenant=acme.model_copy(update={"weight": float(minutes)})))
    state = await registry.read()
    assert state.tenants == {"acme": acme.model_copy(update={"weight": float(minutes)})}
    assert state.keys == {key.id: key}
    assert state.last_use.keys == {key.id: now + timedelta(minutes=minutes)}
    with pytest.raises(WorkflowUpdateFailedError):
        await registry.put_tenant(PutTenantInput(tenant=acme, create_only=True))
    await registry.remove_tenant("acme")
    assert await registry.read() == TenantRegistryState(), "also what was stored before"


async def test_paused_endpoint_stays_paused_over_continue_as_new(small: Stack) -> None:
    handle = await start_paused_endpoint(small.temporal, "fails.example", small.settings.task_queue)
    first = await current_run(handle)
    await handle.execute_update("acquire_probe")
    async with asyncio.timeout(60):
        while await current_run(handle) == first:
            await handle.signal("record_failure")
    state: EndpointState = await (await handle.describe()).memo_value(ENDPOINT_MEMO, type_hint=EndpointState)
    assert state.is_paused
    assert state.probed_at is not None
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update("acquire_probe")
    await handle.signal("record_success")
    await handle.result()


async def test_events_keep_their_order_over_continue_as_new_of_their_semaphore(small: Stack) -> None:
    await subscribed(small, "long", "t.long", "witness", params={"who": "long"}, orderBy="data.key")
    runs: set[str] = set()
    for start in range(0, 60, 10):
        batch = [event("t.long", {"key": "k", "n": start + step}) for step in range(10)]
        answer = await small.http.post(EVENTS, json=batch)
        assert answer.json()["accepted"] == 10, answer.text
    handle = small.temporal.get_workflow_handle(ordering_workflow_id("default", "long", "=k"))

    async def all_seen() -> bool:
        runs.add(await current_run(handle))
        return sum(who == "long" for who, *_ in SEEN) == 60

    await until(all_seen, seconds=120)
    assert len(runs) > 2, "it continued as new while events held and awaited it"
    seen = [(data["n"], began, ended) for who, data, began, ended in SEEN if who == "long"]
    assert [n for n, _, _ in seen] == list(range(60))
    assert all(before[2] <= after[1] for before, after in pairwise(seen))
    await asyncio.wait_for(handle.result(), 30)


async def test_circuit_stays_open_over_continue_as_new(small: Stack, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    body: dict[str, Any] = {"agent": "mendable", "params": {"broken": str(broken)}, "timeout": 1}
    for _ in range(2):
        await small.query(**body)
    handle = small.temporal.get_workflow_handle(circuit_workflow_id("mendable"))
    first = await current_run(handle)
    opened_at = (await circuit_state(handle)).opened_at
    probes = 0
    async with asyncio.timeout(90):
        while await current_run(handle) == first:
            probe_id = f"probe-{probes}"
            try:
                await handle.execute_update("acquire_probe", probe_id)
            except WorkflowUpdateFailedError:  # the circuit has not been open for long enough yet
                await asyncio.sleep(0.1)
                continue
            probes += 1
            await handle.signal("probe_failed" if probes % 2 else "release_probe", probe_id)
    state = await circuit_state(handle)
    assert state.opened_at == opened_at
    assert state.consecutive_openings >= probes // 2
    # After 0.5 s the query is the next probe, fails, and opens it again.
    refusals = [(await small.query(**body)).status_code for _ in range(2)]
    assert 503 in refusals
    assert 200 not in refusals
    broken.unlink()
    async with asyncio.timeout(30):
        while (await small.query(**{**body, "timeout": 5})).status_code != 200:
            await asyncio.sleep(0.2)
        await handle.result()


async def circuit_state(handle: WorkflowHandle[Any, Any]) -> OpenCircuit:
    state: OpenCircuit = await (await handle.describe()).memo_value(CIRCUIT_MEMO, type_hint=OpenCircuit)
    return state


async def test_quota_allocations_hold_over_continue_as_new(small: Stack) -> None:
    assert (await small.query(agent="few")).status_code == 200
    handle = small.temporal.get_workflow_handle(limits_workflow_id("few"))

    async def renew(process: str) -> LeaseGrant:
        ask = LeaseRequest(process=process, limits=LIMITS, in_use=0, demand=4, is_calling=True)
        grant: LeaseGrant = await handle.execute_update("renew_lease", ask, result_type=LeaseGrant)
        return grant

    async with asyncio.timeout(30):
        # the worker's own allocation shrinks to what these two leave
        while (held := (await renew("a")).slots + (await renew("b")).slots) < 3:
            await asyncio.sleep(0.1)
    first = await current_run(handle)
    async with asyncio.timeout(60):
        while await current_run(handle) == first:
            held = (await renew("a")).slots + (await renew("b")).slots
            assert 3 <= held <= 4
    assert (await renew("c")).slots <= 4 - held, "the new run still counts the allocations"

    async def is_called_again() -> bool:
        return (await small.query(agent="few", timeout=2)).status_code == 200

    await until(is_called_again, 40)  # once the leases of those that renew no more have expired


def test_every_entity_workflow_continues_as_new_here() -> None:
    """A workflow that calls `continue_as_new` needs a test in this module."""
    rooms = Path(__file__).parents[1] / "workflows"
    found = {path.name for path in rooms.rglob("*.py") if "workflow.continue_as_new(" in path.read_text()}
    assert found == {
        "subscription_registry.py",
        "usage_ledger.py",
        "endpoint_health.py",
        "endpoints.py",
        "ordering.py",
        "circuit_breaker.py",
        "agent_limits.py",
        "tenant_registry.py",
    }
