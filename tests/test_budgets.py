"""Budgets of tenants and keys, limits of single runs, and the usage that both are checked against."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.access.registry import TenantRegistryClient
from sevenfold.adapters.access.snapshot import ConfiguredAccess
from sevenfold.adapters.quotas.budgets import seconds_to_midnight
from sevenfold.contracts.access.quotas import Budget, Quotas
from sevenfold.contracts.access.tenant_registry import TenantRecord
from sevenfold.contracts.agents.errors import QuotaExceeded
from sevenfold.contracts.agents.usage import DayUsage, LedgerState, UsageFlush, UsageTotals, ledger_workflow_id
from sevenfold.runtime.quotas import build_quotas
from tests.support.child_workflows import CLEANED_UP, Child
from tests.support.events import SUBSCRIPTIONS, event, published
from tests.support.processes import EmbeddedTemporalOnly, has_status, is_live, until
from tests.support.stack import Stack, another_api, http_client, make_settings, running_stack, sevenfold
from tests.support.tenants import TenantKey, client_of, key_config

API = "/api/agent"
ADMIN = TenantKey("default", ("admin",))
TOKENS, MONEY, SHARED, SINGLE, PLAIN = map(TenantKey, ("tokens", "money", "shared", "single", "plain"))
KEYED = TenantKey("plain", more="budget = {tokens = 100}")
CONFIG = """
[agents.priced]
kind = "simulator"
price = {input = 1, output = 20, call = 0.001}

[agents.spender]
kind = "python"
target = "tests.support.agents:spender"
price = {output = 10}
circuit = {enabled = false}

[agents.single]
kind = "simulator"
max_concurrency = 1

[agents.reports]
kind = "workflow"
workflow = "Child"
task_queue = "children"
price = {output = 10, call = 0.5}

[agents.liar]
kind = "python"
target = "tests.support.agents:liar"
circuit = {enabled = false}

[tenants.tokens]
budget = {tokens = 1000}
[tenants.money]
budget = {usd = 0.01}
[tenants.shared]
budget = {tokens = 1000}
[tenants.single]
budget = {tokens = 300}
"""


@pytest.fixture(scope="module")
async def metered(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    config = CONFIG + key_config(ADMIN, TOKENS, MONEY, SHARED, SINGLE, PLAIN, KEYED)
    async with running_stack(tmp_path_factory.mktemp("budgets"), more_config=config) as stack:
        yield stack


async def ask(client: httpx.AsyncClient, tokens: int, agent: str = "simulator", **body: object) -> httpx.Response:
    """A query that uses so many tokens."""
    question = {"query": "hi", "agent": agent, "params": {"seconds": 0, "tokens": tokens}, **body}
    return await client.post(f"{API}/query", json=question)


async def usage(client: httpx.AsyncClient, **params: str) -> dict[str, Any]:
    """What `GET /usage` reports."""
    answer = await client.get(f"{API}/usage", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_tenant_that_has_used_its_tokens_is_refused_until_midnight(metered: Stack) -> None:
    async with client_of(metered, TOKENS) as client, client_of(metered, PLAIN) as neighbour:
        assert (await ask(client, 600)).status_code == 200
        assert (await ask(client, 600)).status_code == 200  # It had 400 left, so what it used beyond them is paid.
        refused = await ask(client, 1)
        assert refused.status_code == 429
        assert refused.json()["violated-policies"] == ["tenant-tokens"]
        assert refused.headers["RateLimit-Policy"] == '"tenant-tokens";q=1000;w=86400;qu="tokens"'
        midnight = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        assert abs(int(refused.headers["Retry-After"]) - (midnight - datetime.now(UTC)).total_seconds()) < 5
        assert (await ask(neighbour, 1)).status_code == 200
        (budget,) = (await usage(client))["budgets"]
        assert (budget["owner"], budget["usedTokens"], budget["budget"]) == ("tenant", 1200, {"tokens": 1000})


async def test_money_is_counted_by_the_agents_price(metered: Stack) -> None:
    async with client_of(metered, MONEY) as client:
        assert (await ask(client, 100, "priced")).status_code == 200  # 0.001 a call and 100 * 20 / 1e6: 0.003
        assert (await ask(client, 10_000)).status_code == 200  # The simulator has no price.
        assert (await ask(client, 300, "priced")).status_code == 200  # 0.007 more
        refused = await ask(client, 1, "priced")
        assert refused.json()["violated-policies"] == ["tenant-usd"]
        assert refused.headers["RateLimit-Policy"] == '"tenant-usd";q=10000;w=86400;qu="micro-usd"'
        await until(lambda: _is_recorded(client, 3), 10)
        report = await usage(client, by="agent")
        costs = {row["agent"]: row["costUsd"] for row in report["items"]}
        assert costs == {"priced": pytest.approx(0.01), "simulator": 0}


async def _is_recorded(client: httpx.AsyncClient, calls: int) -> bool:
    return bool((await usage(client))["total"]["calls"] == calls)


async def test_a_key_has_a_budget_of_its_own(metered: Stack) -> None:
    async with client_of(metered, KEYED) as keyed, client_of(metered, PLAIN) as other:
        assert (await ask(keyed, 100)).status_code == 200
        assert (await ask(keyed, 1)).json()["violated-policies"] == ["key-tokens"]
        assert (await ask(other, 1)).status_code == 200
        (budget,) = (await usage(keyed))["budgets"]
        assert (budget["owner"], budget["name"], budget["usedTokens"]) == ("key", KEYED.new.key_id, 100)


async def test_two_processes_together_hold_a_budget(metered: Stack) -> None:
    async with another_api(metered) as other, client_of(metered, SHARED) as first, client_of(other, SHARED) as second:
        assert (await ask(first, 1000)).status_code == 200

        async def is_refused() -> bool:
            return (await ask(second, 1)).status_code == 429

        await until(is_refused, 10)  # Written within a second, and read within another.


async def test_failed_attempts_count_what_they_reported(metered: Stack) -> None:
    async with client_of(metered, PLAIN) as client:
        before = (await usage(client, agent="spender"))["total"]
        body = {"query": "hi", "agent": "spender", "params": {"tokens": 50, "failures": 2}, "timeout": 20}
        answer = await client.post(f"{API}/query", json=body)
        assert answer.status_code == 200
        assert answer.json()["usage"] == {"inputTokens": 0, "outputTokens": 50}

        async def is_counted() -> bool:
            total = (await usage(client, agent="spender"))["total"]
            return bool(total["outputTokens"] - before["outputTokens"] == 150)

        await until(is_counted, 10)
        total = (await usage(client, agent="spender"))["total"]
        assert total["calls"] - before["calls"] == 3
        assert total["failedCalls"] - before["failedCalls"] == 2


async def test_an_accepted_job_waits_for_a_budget_and_continues_when_it_is_raised(metered: Stack) -> None:
    async with client_of(metered, ADMIN) as admin, client_of(metered) as client:
        await admin.post(f"{API}/admin/tenants", json={"name": "waiting", "budget": {"tokens": 300}})
        scopes = ["runs:write", "runs:read"]
        key = (await admin.post(f"{API}/admin/tenants/waiting/keys", json={"scopes": scopes})).json()["key"]
        client.headers["X-API-Key"] = key
        job = {
            "task": "work",
            "agent": "simulator",
            "params": {"seconds": 0.1, "tokens": 100},
            "data": {"items": list(range(8))},
            "concurrency": 1,
            "timeout": 12,  # A call that waits comes again after 80 % of what is left at the latest.
        }
        run_id = (await client.post(f"{API}/jobs", json=job)).json()["jobId"]

        async def waits() -> bool:
            waiting = (await client.get(f"{API}/runs/{run_id}")).json().get("waiting")
            return bool(waiting and "300 tokens a day" in waiting["reason"])

        await until(waits, 10)
        progress = (await client.get(f"{API}/jobs/{run_id}")).json()["progress"]
        assert 3 <= progress["completed"] <= 4
        await admin.put(f"{API}/admin/tenants/waiting", json={})
        await until(lambda: has_status(client, run_id, "completed"), 20)
        assert (await client.get(f"{API}/jobs/{run_id}")).json()["progress"]["completed"] == 8


@pytest.mark.parametrize("limit", [{"maxTokens": 100}, {"maxCost": 0.003}])
async def test_a_run_is_stopped_when_it_reports_more_than_it_may(metered: Stack, limit: dict[str, float]) -> None:
    async with client_of(metered, PLAIN) as client:
        stopped = await client.post(
            f"{API}/query",
            json={"query": "hi", "agent": "priced", "params": {"seconds": 2, "tokens": 1000}, **limit},
        )
        assert stopped.status_code == 409
        problem = stopped.json()
        assert (problem["type"], problem["code"]) == ("/problems/run-limit-reached", "RunLimitReached")
        run = (await client.get(f"{API}/runs/{problem['runId']}")).json()
        assert run["error"]["usage"]["outputTokens"] == 100
        assert (await ask(client, 99, "priced", **limit)).status_code == 200


async def test_an_answer_beyond_the_limit_is_kept(metered: Stack) -> None:
    async with client_of(metered, PLAIN) as client:
        # The spender reports only with its answer.
        body = {"query": "hi", "agent": "spender", "maxTokens": 10, "params": {"tokens": 50, "silent": True}}
        answer = await client.post(f"{API}/query", json=body)
        assert answer.status_code == 200


async def test_attempts_of_a_run_share_its_limit(metered: Stack) -> None:
    async with client_of(metered, PLAIN) as client:
        for path, body in (
            ("tasks", {"task": "work"}),
            ("hybrid", {"query": "hi"}),
            ("stream", {"query": "hi"}),
            ("query", {"query": "hi"}),
        ):
            params = {"tokens": 50, "failures": 20}
            more = {"agent": "spender", "maxTokens": 90, "params": params, "timeout": 30}
            answer = await client.post(f"{API}/{path}", json={**body, **more}, timeout=40)
            assert answer.status_code in (200, 202, 409)
            newest = (await client.get(f"{API}/runs", params={"limit": 1, "agent": "spender"})).json()["items"][0]
            await until(lambda run=newest["id"]: has_status(client, run, "failed"), 20)
            error = (await client.get(f"{API}/runs/{newest['id']}")).json()["error"]
            assert error["code"] == "RunLimitReached", path
            assert error["usage"]["outputTokens"] == 100
            assert error["attempts"] == 2


async def test_items_of_a_job_share_its_limit(metered: Stack) -> None:
    async with client_of(metered, PLAIN) as client:
        job = {
            "task": "work",
            "agent": "simulator",
            "maxTokens": 500,
            "params": {"seconds": 0, "steps": 1, "tokens": 100},
            "data": {"items": list(range(50))},
            "concurrency": 2,
        }
        run_id = (await client.post(f"{API}/jobs", json=job)).json()["jobId"]
        await until(lambda: has_status(client, run_id, "failed"), 20)
        state = (await client.get(f"{API}/jobs/{run_id}")).json()
        assert state["error"]["code"] == "RunLimitReached"
        assert 500 <= state["error"]["usage"]["outputTokens"] <= 700
        lines = (await client.get(f"{API}/jobs/{run_id}/results")).text.splitlines()
        assert sum('"completed"' in line for line in lines) == state["progress"]["completed"] >= 4


async def single_items(client: httpx.AsyncClient, **more: object) -> str:
    """Queues 12 items of 100 tokens that wait for the one permit of their agent, all at the same time."""
    job = {
        "task": "work",
        "agent": "single",
        "params": {"seconds": 0.05, "steps": 1, "tokens": 100},
        "data": {"items": list(range(12))},
        "concurrency": 12,
        **more,
    }
    return str((await client.post(f"{API}/jobs", json=job)).json()["jobId"])


async def test_items_that_wait_for_a_permit_do_not_pass_the_limit(metered: Stack) -> None:
    async with client_of(metered, PLAIN) as client:
        run_id = await single_items(client, maxTokens=300)
        await until(lambda: has_status(client, run_id, "failed"), 20)
        error = (await client.get(f"{API}/jobs/{run_id}")).json()["error"]
        assert error["code"] == "RunLimitReached"
        assert error["usage"]["outputTokens"] == 300


async def test_items_that_wait_for_a_permit_do_not_pass_the_budget(metered: Stack) -> None:
    async with client_of(metered, SINGLE) as client:
        run_id = await single_items(client)

        async def waits() -> bool:
            return bool((await client.get(f"{API}/runs/{run_id}")).json().get("waiting"))

        await until(waits, 20)
        assert (await client.get(f"{API}/jobs/{run_id}")).json()["progress"]["completed"] == 3
        await client.post(f"{API}/runs/{run_id}/cancel")


async def test_a_single_item_that_reaches_the_limit_fails_the_job(metered: Stack) -> None:
    async with client_of(metered, PLAIN) as client:
        job = {
            "task": "work",
            "agent": "simulator",
            "params": {"seconds": 0.2, "tokens": 1000},
            "data": {"items": [1]},
            "maxTokens": 100,
            "maxFailures": 0,
        }
        run_id = (await client.post(f"{API}/jobs", json=job)).json()["jobId"]
        await until(lambda: has_status(client, run_id, "failed"), 20)
        state = (await client.get(f"{API}/jobs/{run_id}")).json()
        assert state["error"]["code"] == "RunLimitReached"
        assert state["error"]["usage"] == {
            "calls": 1,
            "failedCalls": 1,
            "inputTokens": 0,
            "outputTokens": 100,
            "microUsd": 0,
        }


@pytest.mark.parametrize(
    ("way", "seconds", "calls", "tokens"),
    [("answer", 20, 1, 40), ("fail twice", 20, 3, 40), ("wait", 1.5, 1, 0), ("refuse", 20, 1, 0)],
)
async def test_workflow_agents_are_counted_however_they_end(
    metered: Stack, way: str, seconds: float, calls: int, tokens: int
) -> None:
    async with (
        client_of(metered, PLAIN) as client,
        Worker(metered.temporal, task_queue="children", workflows=[Child]),
    ):
        before = (await usage(client, agent="reports"))["total"]
        body = {
            "query": "hi",
            "agent": "reports",
            "params": {"do": way, "seconds": 9, "usage": tokens},
            "timeout": seconds,
        }
        await client.post(f"{API}/query", json=body)

        async def is_counted() -> bool:
            total = (await usage(client, agent="reports"))["total"]
            return bool(total["calls"] - before["calls"] == calls)

        await until(is_counted, 15)
        total = (await usage(client, agent="reports"))["total"]
        assert total["outputTokens"] - before["outputTokens"] == tokens
        assert total["costUsd"] - before["costUsd"] == pytest.approx(0.5 * calls + tokens * 10 / 1e6)


async def test_a_workflow_agent_is_not_called_without_a_budget(metered: Stack) -> None:
    async with (
        client_of(metered, ADMIN) as admin,
        client_of(metered) as client,
        Worker(metered.temporal, task_queue="children", workflows=[Child]),
    ):
        await admin.post(f"{API}/admin/tenants", json={"name": "flows", "budget": {"usd": 0.4}})
        scopes = ["runs:write", "runs:read", "metrics:read", "events:write"]
        key = (await admin.post(f"{API}/admin/tenants/flows/keys", json={"scopes": scopes})).json()["key"]
        client.headers["X-API-Key"] = key
        rule = {"filter": {"exact": {"type": "t.flow"}}, "agent": "reports", "task": "work", "timeout": 30}
        assert (await client.put(f"{SUBSCRIPTIONS}/flow", json=rule)).is_success
        for _ in range(2):
            await published(client, event("t.flow"))
            await asyncio.sleep(3)
        # A call costs 0.5: the first is made, the second waits.
        assert (await usage(client))["total"]["calls"] == 1
        runs = (await client.get(f"{API}/runs", params={"agent": "reports"})).json()["items"]
        assert sorted(run["status"] for run in runs) == ["completed", "processing"]
        await admin.put(f"{API}/admin/tenants/flows", json={})


async def test_a_workflow_agent_is_stopped_at_the_report_that_reaches_its_limit(metered: Stack) -> None:
    """Of the attempt that has just failed 80 tokens count too."""
    async with (
        client_of(metered, PLAIN) as client,
        Worker(metered.temporal, task_queue="children", workflows=[Child]),
    ):
        before = (await usage(client))["total"]
        for params, limit, reported in (
            ({"do": "spend"}, {"maxTokens": 120}, 120),
            ({"do": "spend"}, {"maxCost": 0.4}, 40),  # A call costs 0.5.
            ({"do": "spend", "fails": True}, {"maxTokens": 120}, 120),
            ({"do": "spend"}, {"maxTokens": 401}, None),
        ):
            body = {"query": "hi", "agent": "reports", "params": params, **limit}
            answer = await client.post(f"{API}/query", json=body)
            if reported is None:
                assert answer.status_code == 200, answer.text
                continue
            problem = answer.json()
            assert problem["code"] == "RunLimitReached", problem
            used = problem["usage"]
            assert reported <= used["inputTokens"] + used["outputTokens"] <= reported + 40

            async def is_cancelled(run_id: str = problem["runId"]) -> bool:
                return run_id in CLEANED_UP

            await until(is_cancelled, 10)

        async def is_counted() -> bool:
            total = (await usage(client))["total"]
            tokens = sum(total[name] - before[name] for name in ("inputTokens", "outputTokens"))
            return total["calls"] - before["calls"] == 5 and 680 <= tokens <= 760

        await until(is_counted, 10)


async def test_calls_are_made_while_a_ledger_cannot_be_read(tmp_path: Path) -> None:
    async with EmbeddedTemporalOnly(make_settings(tmp_path)) as address:
        client = await Client.connect(address, data_converter=pydantic_data_converter)
    record = TenantRecord(name="acme", created_at=datetime.now(UTC), quotas=Quotas(budget=Budget(tokens=1)))
    access = AccessDirectory(TenantRegistryClient(client, "none"), ConfiguredAccess({"acme": record}, {}))
    quotas = build_quotas(client, "none", access)
    await quotas.budgets.check_call("acme", None)
    quotas.meter.record("acme", None, "agent", UsageTotals(calls=1, output_tokens=1))
    with pytest.raises(QuotaExceeded):  # What this process has counted is known.
        await quotas.budgets.check_call("acme", None)
    await quotas.aclose()


async def test_a_running_call_counts_what_it_has_reported(metered: Stack) -> None:
    async with client_of(metered, PLAIN) as client:
        before = (await usage(client, agent="spender"))["total"]
        body = {"task": "work", "agent": "spender", "params": {"tokens": 70, "seconds": 30}}
        run_id = (await client.post(f"{API}/tasks", json=body)).json()["taskId"]

        async def is_counted() -> bool:
            total = (await usage(client, agent="spender"))["total"]
            return bool(total["outputTokens"] - before["outputTokens"] == 70)

        await until(is_counted, 10)
        assert (await usage(client, agent="spender"))["total"]["calls"] == before["calls"]
        await client.post(f"{API}/runs/{run_id}/cancel")

        async def has_ended() -> bool:
            return bool((await usage(client, agent="spender"))["total"]["calls"] == before["calls"] + 1)

        await until(has_ended, 10)
        assert (await usage(client, agent="spender"))["total"]["outputTokens"] == before["outputTokens"] + 70


async def test_a_rotated_key_shares_its_budget_with_its_successor(metered: Stack) -> None:
    async with client_of(metered, ADMIN) as admin, client_of(metered) as client, client_of(metered) as next_client:
        keys = f"{API}/admin/tenants/plain/keys"
        body = {"scopes": ["runs:write", "metrics:read"], "budget": {"tokens": 100}}
        old = (await admin.post(keys, json=body)).json()
        new = (await admin.post(f"{keys}/{old['id']}/rotate", json={})).json()
        newest = (await admin.post(f"{keys}/{new['id']}/rotate", json={})).json()
        client.headers["X-API-Key"], next_client.headers["X-API-Key"] = old["key"], newest["key"]
        assert (await ask(client, 100)).status_code == 200
        refused = await ask(next_client, 1)
        assert refused.status_code == 429
        assert refused.json()["violated-policies"] == ["key-tokens"]


async def test_a_query_whose_next_attempt_has_no_budget_is_refused(metered: Stack) -> None:
    async with client_of(metered, ADMIN) as admin, client_of(metered) as client:
        await admin.post(f"{API}/admin/tenants", json={"name": "tight", "budget": {"tokens": 50}})
        key = (await admin.post(f"{API}/admin/tenants/tight/keys", json={"scopes": ["runs:write"]})).json()["key"]
        client.headers["X-API-Key"] = key
        body = {"query": "hi", "agent": "spender", "params": {"tokens": 60, "failures": 1}, "timeout": 20}
        refused = await client.post(f"{API}/query", json=body)
        assert refused.status_code == 429
        problem = refused.json()
        assert (problem["code"], problem["violated-policies"]) == ("QuotaExceeded", ["tenant-tokens"])
        assert int(refused.headers["Retry-After"]) == pytest.approx(seconds_to_midnight(), abs=5)


async def test_usage_of_a_removed_tenant_stays(metered: Stack) -> None:
    async with client_of(metered, ADMIN) as admin, client_of(metered) as client:
        await admin.post(f"{API}/admin/tenants", json={"name": "leaving"})
        key = (await admin.post(f"{API}/admin/tenants/leaving/keys", json={"scopes": ["runs:write"]})).json()["key"]
        client.headers["X-API-Key"] = key
        await ask(client, 11)

        async def is_listed() -> bool:
            return "leaving" in {row["tenant"] for row in (await usage(admin, by="tenant"))["items"]}

        await until(is_listed, 15)
        await admin.delete(f"{API}/admin/tenants/leaving")
        await asyncio.sleep(1.1)
        assert await is_listed()


@pytest.mark.parametrize("where", ["yielded", "in the reply", "in the error"])
@pytest.mark.parametrize("value", [-5, float("nan"), "many", None])
async def test_usage_that_is_no_number_is_refused(metered: Stack, where: str, value: object) -> None:
    async with client_of(metered, PLAIN) as client:
        params = {"where": where, "value": str(value)}
        answer = await client.post(
            f"{API}/query", json={"query": "hi", "agent": "liar", "params": params, "timeout": 3}
        )
        expected = "AgentUnavailable" if where == "in the error" else "AgentRejected"
        assert (answer.status_code, answer.json()["code"]) == (502, expected)


async def test_max_cost_needs_a_price(metered: Stack) -> None:
    async with client_of(metered, PLAIN) as client:
        refused = await ask(client, 1, maxCost=1)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "/maxCost"
        for name, value in (("maxTokens", 0), ("maxTokens", 1.5), ("maxCost", 0), ("maxCost", "1")):
            assert (await ask(client, 1, **{name: value})).status_code == 422


async def test_usage_is_summed_by_day_agent_and_tenant(metered: Stack) -> None:
    async with client_of(metered, ADMIN) as admin, client_of(metered, PLAIN) as plain:
        await ask(plain, 7)
        await until(lambda: _is_used(admin), 10)
        by_tenant = await usage(admin, by="tenant")
        assert {row["tenant"] for row in by_tenant["items"]} >= {"tokens", "money", "plain"}
        assert all("day" not in row and "agent" not in row for row in by_tenant["items"])
        assert by_tenant["total"]["calls"] == sum(row["calls"] for row in by_tenant["items"])
        own = await admin.get(f"{API}/usage", params={"by": "tenant", "tenant": "money"})
        assert [row["tenant"] for row in own.json()["items"]] == ["money"]
        foreign = await plain.get(f"{API}/usage", params={"by": "tenant"})
        assert [row["tenant"] for row in foreign.json()["items"]] == ["plain"]
        table = await admin.get(f"{API}/usage", params={"by": ["day", "agent"]}, headers={"Accept": "text/csv"})
        header, *rows = table.text.splitlines()
        assert header == "day,agent,calls,failedCalls,inputTokens,outputTokens,costUsd"
        assert {row.split(",")[0] for row in rows} == {f"{datetime.now(UTC):%Y-%m-%d}"}


async def _is_used(admin: httpx.AsyncClient) -> bool:
    return any(row["tenant"] == "plain" for row in (await usage(admin, by="tenant"))["items"])


@pytest.mark.parametrize(
    "params",
    [
        {"from": "2026-02-30"},
        {"from": "2026-05-02", "to": "2026-05-01"},
        {"by": "hour"},
        {"agent": "…"},
        {"days": "3"},
    ],
)
async def test_malformed_questions_for_usage_are_refused(metered: Stack, params: dict[str, str]) -> None:
    async with client_of(metered, PLAIN) as client:
        answer = await client.get(f"{API}/usage", params=params)
        assert answer.status_code == 422


@pytest.mark.parametrize(
    "params", [{"from": "0001-01-01"}, {"to": "0001-01-05"}, {"from": "9999-01-01", "to": "9999-12-31"}]
)
async def test_days_out_of_reach_have_no_usage(metered: Stack, params: dict[str, str]) -> None:
    async with client_of(metered, PLAIN) as client:
        answer = await client.get(f"{API}/usage", params=params)
        assert answer.status_code == 200, answer.text


async def test_a_repeated_flush_counts_once(metered: Stack) -> None:
    totals = UsageTotals(calls=1, output_tokens=5)
    flush = UsageFlush(process="p", sequence=1, days={"2020-01-31": DayUsage(agents={"a": totals})})
    ledgers = metered.services.quotas.ledgers
    for _ in range(3):
        await ledgers.record("plain", f"{datetime.now(UTC):%Y-%m}", flush)
    later = flush.model_copy(update={"sequence": 2})
    await ledgers.record("plain", f"{datetime.now(UTC):%Y-%m}", later)
    ledger = metered.temporal.get_workflow_handle(ledger_workflow_id("plain", f"{datetime.now(UTC):%Y-%m}"))

    async def is_counted() -> bool:
        description = await ledger.describe()
        usage = await description.memo_value("day:2020-01-31", DayUsage(), type_hint=DayUsage)
        return bool(usage.total().output_tokens == 10)

    await until(is_counted, 10)


def test_a_ledger_keeps_days_and_forgets_keys_after_two() -> None:
    state = LedgerState(month="2026-02")
    for number, day in enumerate(("2026-02-01", "2026-02-02", "2026-02-03"), start=1):
        usage = DayUsage(agents={"a": UsageTotals(calls=1)}, keys={"k": UsageTotals(calls=1)})
        state = state.record(UsageFlush(process="p", sequence=number, days={day: usage}))
    assert [bool(one.keys) for one in state.days.values()] == [False, True, True]
    assert sum(one.total().calls for one in state.days.values()) == 3
    assert state.ends_at.date() == date(2026, 3, 1) + timedelta(days=400)


async def test_a_killed_worker_loses_a_second_of_usage_at_most(tmp_path: Path) -> None:
    key = TenantKey("acme")
    config = "[tenants.acme]\nbudget = {tokens = 1000000}\n" + key_config(key)
    settings = make_settings(tmp_path, more_config=config)
    async with EmbeddedTemporalOnly(settings) as address:
        more = {"TEMPORAL_ADDRESS": address, "SEVENFOLD_SECRET_KEY": "A" * 43 + "="}
        with sevenfold("api", settings, **more) as api, sevenfold("worker", settings, **more) as worker:
            async with http_client(settings.port) as http:
                http.headers.update(key.headers)
                await until(lambda: is_live(http, api), 30)
                for _ in range(5):
                    assert (await ask(http, 10)).status_code == 200
                await asyncio.sleep(2.5)
                assert (await ask(http, 1000)).status_code == 200
                worker.kill()
                used = (await usage(http))["total"]
                assert used["outputTokens"] in (50, 1050)
                with sevenfold("worker", settings, **more):
                    assert (await ask(http, 10, timeout=30)).status_code == 200

                    async def is_recorded() -> bool:
                        return bool((await usage(http))["total"]["outputTokens"] in (60, 1060))

                    await until(is_recorded, 20)


async def test_the_command_shows_usage(metered: Stack) -> None:
    async def run(*options: str) -> str:
        sevenfold_command = Path(sys.executable).parent / "sevenfold"
        url = f"http://127.0.0.1:{metered.settings.port}"
        process = await asyncio.create_subprocess_exec(
            *(str(sevenfold_command), "usage", "--by", "agent", "--url", url, *options),
            env={**os.environ, "SEVENFOLD_API_KEY": ADMIN.text, "COLUMNS": "120"},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode()

    async with client_of(metered, TOKENS) as client:
        await ask(client, 1)
    assert "Budget of the tenant tokens today" in await run()
    assert "items" in json.loads(await run("--json"))
    assert (await run("--csv")).startswith("agent,calls,failedCalls,inputTokens,outputTokens,costUsd\n")
