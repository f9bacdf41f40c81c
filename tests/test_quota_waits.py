"""What waits for a quota, and what does not: attempts, queries, redrives; and what clients are shown meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.worker import Worker

from tests.support.child_workflows import Child
from tests.support.events import EVENTS, LETTERS, SUBSCRIPTIONS, event, published
from tests.support.processes import until
from tests.support.stack import Stack, running_stack
from tests.support.tenants import TenantKey, client_of, key_config

API = "/api/agent"
ADMIN = TenantKey("default", ("admin",))
FLOW, QUIET, REDRIVEN, SPENT = map(TenantKey, ("flow", "quiet", "redriven", "spent"))
CONFIG = """
[interactions]
enabled = true

[agents.flow]
kind = "workflow"
workflow = "Child"
task_queue = "children"

[agents.spender]
kind = "simulator"

[tenants.flow]
budget = {tokens = 100}
[tenants.quiet]
events = "6/m"
[tenants.redriven]
events = "6/m"
[tenants.spent]
budget = {tokens = 10}
"""


@pytest.fixture(scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    config = CONFIG + key_config(ADMIN, FLOW, QUIET, REDRIVEN, SPENT)
    async with running_stack(tmp_path_factory.mktemp("waits"), more_config=config) as stack:
        yield stack


async def used_tokens(client: httpx.AsyncClient) -> int:
    report = (await client.get(f"{API}/usage")).json()
    return int(report["total"]["inputTokens"] + report["total"]["outputTokens"])


async def test_a_workflow_agents_attempts_stop_at_the_budget(limited: Stack) -> None:
    """Each attempt uses 80 tokens and fails: the third one waits, and the run shows why."""
    async with (
        client_of(limited, FLOW) as client,
        client_of(limited, ADMIN) as admin,
        Worker(limited.temporal, task_queue="children", workflows=[Child]),
    ):
        task = {"task": "work", "agent": "flow", "params": {"do": "spend", "fails": "always"}, "timeout": 60}
        run_id = (await client.post(f"{API}/tasks", json=task)).json()["taskId"]
        reasons: set[str] = set()

        async def waits_for_its_budget() -> bool:
            waiting = (await client.get(f"{API}/runs/{run_id}")).json()["waiting"]
            if waiting is not None:
                assert waiting["until"] is not None
                reasons.add(waiting["reason"])
            return any("tokens a day" in reason for reason in reasons)

        await until(waits_for_its_budget, 30)
        assert any("Own" in reason for reason in reasons), "the retry was shown too"
        await asyncio.sleep(2)
        assert await used_tokens(client) == 160
        await admin.patch(f"{API}/admin/tenants/flow", json={"budget": None})
        await client.post(f"{API}/runs/{run_id}/cancel")

        async def has_ended() -> bool:
            run = (await client.get(f"{API}/runs/{run_id}")).json()
            return run["status"] == "cancelled" and run["waiting"] is None

        await until(has_ended, 30)


async def test_a_query_does_not_wait_for_the_rate_of_its_interaction_event(limited: Stack) -> None:
    """The events come later, each once."""
    async with client_of(limited, QUIET) as client:
        runs = []
        for _ in range(8):
            answer = await client.post(f"{API}/query", json={"query": "hi", "agent": "echo", "timeout": 5})
            assert answer.status_code == 200, answer.text
            runs.append(answer.json()["queryId"])
        for run_id in runs:
            run = await limited.temporal.get_workflow_handle(f"quiet:{run_id}").describe()
            assert run.status is WorkflowExecutionStatus.COMPLETED
        late = []
        for run_id in runs:
            try:
                found = await limited.temporal.get_workflow_handle(f"quiet:{run_id}/event/{run_id}").describe()
            except RPCError:
                continue
            late.append((run_id, found))
        assert 1 <= len(late) <= 4
        assert all(found.status is WorkflowExecutionStatus.RUNNING for _, found in late)

        async def first_is_published() -> bool:
            items = (await client.get(EVENTS, params={"source": "/sevenfold/runs"})).json()["items"]
            ids = [one["event"]["id"] for one in items]
            assert len(ids) == len(set(ids))
            return len(ids) > len(runs) - len(late)

        await until(first_is_published, 60)


async def test_redrives_count_as_events(limited: Stack) -> None:
    async with client_of(limited, REDRIVEN) as client:
        rule = {"filter": {"exact": {"type": "t.bad"}}, "agent": "picky", "task": "work"}
        assert (await client.put(f"{SUBSCRIPTIONS}/bad", json=rule)).is_success
        await asyncio.sleep(1)
        await published(client, event("t.bad"))  # With its reaction two of the five that may come at once.

        async def is_dead() -> bool:
            return bool((await client.get(LETTERS, params={"kind": "reaction"})).json()["items"])

        await until(is_dead, 30)
        body = {"since": "2020-01-01T00:00:00Z"}
        counts = []
        for _ in range(12):
            answer = await client.post(f"{LETTERS}/redrive", json=body)
            if answer.status_code == 429:
                assert answer.json()["violated-policies"] == ["tenant-events"]
                break
            counts.append(answer.json()["redriven"])
            await until(is_dead, 30)
        assert sum(counts) <= 4
        letter = (await client.get(LETTERS, params={"kind": "reaction"})).json()["items"][0]
        assert (await client.post(f"{LETTERS}/{letter['id']}/redrive")).status_code == 429


async def test_a_call_that_the_worker_refuses_is_answered_like_one_that_the_api_refuses(limited: Stack) -> None:
    """The API's view of the budget may be a second old: two requests at once, and one of them is refused later."""
    async with client_of(limited, SPENT) as client:
        body = {"query": "hi", "agent": "simulator", "params": {"seconds": 0.3, "tokens": 50}}
        answers = [await client.post(f"{API}/query", json=body) for _ in range(3)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        for answer in refused:
            assert answer.headers["RateLimit-Policy"].startswith('"tenant-tokens";q=10;w=86400')
            assert answer.headers["RateLimit"].startswith('"tenant-tokens";r=0;t=')
            assert int(answer.headers["Retry-After"]) > 0
