"""An agent that is down: left alone, seen by all, called again by itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from sevenfold.contracts.agents.circuits import OpenCircuit, circuit_workflow_id
from tests.support.events import event, published, subscribed, tree, wait_until_settled
from tests.support.processes import until
from tests.support.receivers import Receiver, hangs, running_receiver
from tests.support.stack import Stack, another_api, running_stack
from tests.support.tenant_runs import call_agent
from tests.support.upstreams import Script, events, reply_script, streams

NAMES = (
    "seen",
    "queued",
    "items",
    "event",
    "repeated",
    "by-hand",
    "longer",
    "stopped",
    "refusing",
    "slow",
    "streamed",
    "shared",
)

# seconds: longer where something is done while it lasts
PAUSES = {"seen": 10, "stopped": 20}

OK = reply_script({"response": "well again"})


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
async def circuits(upstream: Receiver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    config = "\n".join(
        f"""
[agents.{name}]
kind = "http"
url = "{upstream.url(f"/{name}")}"
circuit.minimum_calls = 4
circuit.open_seconds = {PAUSES.get(name, 3)}
circuit.max_open_seconds = {max(8, PAUSES.get(name, 3))}
"""
        for name in NAMES
    )
    async with running_stack(tmp_path_factory.mktemp("circuits"), more_config=config) as stack:
        yield stack


async def circuit(stack: Stack, agent: str) -> dict[str, object]:
    items = (await stack.http.get("/api/agent/agents")).json()["items"]
    return next(dict(item["circuit"]) for item in items if item["name"] == agent)


async def until_state(stack: Stack, agent: str, state: str, *, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while (await circuit(stack, agent))["state"] != state:
            await asyncio.sleep(0.1)


async def open_circuit(stack: Stack, upstream: Receiver, agent: str) -> None:
    """By runs that fail."""
    upstream.by_path[f"/{agent}"] = 500
    async with asyncio.timeout(30):
        while (await circuit(stack, agent))["state"] == "closed":
            await stack.query(agent=agent, timeout=2)


async def until_waiting(stack: Stack, run_id: str) -> dict[str, Any]:
    """The run, once it shows why it waits."""
    async with asyncio.timeout(10):
        while (run := await stack.run(run_id))["waiting"] is None:
            await asyncio.sleep(0.05)
    return run


async def task(stack: Stack, agent: str, **body: object) -> str:
    answer = await stack.http.post("/api/agent/tasks", json={"task": "work", "agent": agent, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["taskId"])


async def test_circuit_opens_refuses_half_opens_and_closes(circuits: Stack, upstream: Receiver) -> None:
    assert (await circuit(circuits, "seen")) == {"state": "closed", "since": None, "retryAfter": None}
    await open_circuit(circuits, upstream, "seen")
    calls = len(upstream.at("/seen"))
    assert calls == 4, "as many as it takes"
    closed_state = await circuit(circuits, "seen")
    assert 0 < float(str(closed_state["retryAfter"])) <= 10
    for path, body in (("query", {"query": "hi"}), ("stream", {"query": "hi"}), ("hybrid", {"task": "work"})):
        answer = await circuits.http.post(f"/api/agent/{path}", json={**body, "agent": "seen"})
        assert answer.status_code == 503, answer.text
        assert answer.json()["type"] == "/problems/circuit-open"
        assert "/tasks" in answer.json()["detail"]
        assert 1 <= int(answer.headers["retry-after"]) <= 10
    assert len(upstream.at("/seen")) == calls, "nobody calls it"
    async with another_api(circuits) as api:
        assert (await api.query(agent="seen")).status_code == 503, "every process knows"
    await until_state(circuits, "seen", "half-open")
    upstream.by_path["/seen"] = OK
    assert (await circuits.query(agent="seen")).status_code == 200
    assert (await circuit(circuits, "seen"))["state"] == "closed"
    await asyncio.wait_for(circuits.temporal.get_workflow_handle(circuit_workflow_id("seen")).result(), 20)
    async with another_api(circuits) as api:
        assert (await api.query(agent="seen")).status_code == 200


async def test_queued_runs_wait_for_an_open_circuit_and_resume(circuits: Stack, upstream: Receiver) -> None:
    await open_circuit(circuits, upstream, "queued")
    calls = len(upstream.at("/queued"))
    ids = [await task(circuits, "queued")]
    run = await until_waiting(circuits, ids[0])
    ids += [await task(circuits, "queued") for _ in range(19)]
    assert run["status"] == "processing"
    assert run["attempt"] == 1, "it was not asked yet"
    assert "circuit breaker is open" in run["waiting"]["reason"]
    assert datetime.fromisoformat(run["waiting"]["until"]) > datetime.fromisoformat(run["createdAt"])
    await until(lambda: len(upstream.at("/queued")) > calls, 20)
    await asyncio.sleep(2)  # the pause is twice as long by now
    probes = len(upstream.at("/queued")) - calls
    assert probes <= 2, "one call at a time, to see how it is"
    upstream.by_path["/queued"] = OK
    for run_id in ids:
        run = await circuits.run_until(run_id, "completed", "failed", seconds=30)
        assert run["status"] == "completed"
        assert run["waiting"] is None
    asked = [post.json["attempt"] for post in upstream.at("/queued")[calls + probes :]]
    assert len(asked) == 20
    assert max(asked) <= 1 + probes, "an attempt is a call"
    history = await circuits.temporal.get_workflow_handle(f"default:{ids[0]}").fetch_history()
    assert len(history.events) < 15, "waiting leaves nothing in the history"


async def test_job_items_wait_for_an_open_circuit(circuits: Stack, upstream: Receiver) -> None:
    body = {"task": "work", "agent": "items", "data": {"items": list(range(60))}, "concurrency": 10}
    upstream.by_path["/items"] = reply_script({"response": "ok"})
    job = (await circuits.http.post("/api/agent/jobs", json={**body, "data": {"items": [1]}})).json()["jobId"]
    await circuits.run_until(job, "completed")
    await open_circuit(circuits, upstream, "items")
    calls = len(upstream.at("/items"))
    job = (await circuits.http.post("/api/agent/jobs", json=body)).json()["jobId"]
    await until_waiting(circuits, job)
    upstream.by_path["/items"] = reply_script({"response": "ok"})
    await circuits.run_until(job, "completed", seconds=30)
    progress = (await circuits.http.get(f"/api/agent/jobs/{job}")).json()["progress"]
    assert (progress["completed"], progress["failed"]) == (60, 0)
    assert len(upstream.at("/items")) <= calls + 60 + 3


async def test_reaction_attempts_count_as_agent_calls(circuits: Stack, upstream: Receiver) -> None:
    """It may be tried twice, and is refused beside that."""
    await subscribed(circuits, "circuit-event", "circuit.event", agent="event", maxAttempts=2)
    await open_circuit(circuits, upstream, "event")
    event_id = await published(circuits.http, event("circuit.event"))
    async with asyncio.timeout(10):
        while not (started_at := (await tree(circuits.http, event_id))["reactions"]):
            await asyncio.sleep(0.05)
    reaction_id = started_at[0]["id"]
    await until_waiting(circuits, reaction_id)
    handle = circuits.temporal.get_workflow_handle(circuit_workflow_id("event"))
    async with asyncio.timeout(20):  # one way or the other, a probe fails
        while (await (await handle.describe()).memo_value("state", type_hint=OpenCircuit)).consecutive_openings < 2:
            await circuits.query(agent="event", timeout=2)
    upstream.by_path["/event"] = OK
    (reaction,) = (await wait_until_settled(circuits.http, event_id))["reactions"]
    assert reaction["status"] == "completed"
    asked = [post.json["attempt"] for post in upstream.at("/event") if post.json["runId"] == reaction_id]
    assert asked == list(range(1, len(asked) + 1))
    tried = [
        one.activity_task_started_event_attributes.attempt
        async for one in circuits.temporal.get_workflow_handle(f"default:{reaction_id}").fetch_history_events()
        if one.HasField("activity_task_started_event_attributes")
    ]
    assert max(tried) > len(asked), "it was refused, which is no attempt"


async def test_idempotency_key_finds_its_run_while_the_circuit_is_open(circuits: Stack, upstream: Receiver) -> None:
    upstream.by_path["/repeated"] = OK
    headers = {"Idempotency-Key": "before-it-went-down"}
    first = await circuits.query(agent="repeated", headers=headers)
    assert first.status_code == 200
    await open_circuit(circuits, upstream, "repeated")
    again = await circuits.query(agent="repeated", headers=headers)
    assert (again.status_code, again.json()) == (200, first.json())
    assert (await circuits.query(agent="repeated", headers={"Idempotency-Key": "new"})).status_code == 503


async def test_failed_probe_opens_the_circuit_for_longer(circuits: Stack, upstream: Receiver) -> None:
    await open_circuit(circuits, upstream, "longer")
    for pause in (6, 8, 8):
        await until_state(circuits, "longer", "half-open")
        started_at = time.monotonic()
        assert (await circuits.query(agent="longer")).status_code == 503
        left = float(str((await circuit(circuits, "longer"))["retryAfter"]))
        # the query that probed was tried again after a second or so, and refused
        assert left <= pause <= left + time.monotonic() - started_at + 0.5


async def test_circuit_is_closed_by_hand(circuits: Stack, upstream: Receiver) -> None:
    await open_circuit(circuits, upstream, "by-hand")
    upstream.by_path["/by-hand"] = OK
    await circuits.temporal.get_workflow_handle(circuit_workflow_id("by-hand")).signal("close")
    await until_state(circuits, "by-hand", "closed")
    assert (await circuits.query(agent="by-hand")).status_code == 200


async def test_run_waiting_for_a_circuit_can_be_cancelled(circuits: Stack, upstream: Receiver) -> None:
    await open_circuit(circuits, upstream, "stopped")
    calls = len(upstream.at("/stopped"))
    run_id = await task(circuits, "stopped")
    await until_waiting(circuits, run_id)
    started_at = time.monotonic()
    await circuits.http.post(f"/api/agent/runs/{run_id}/cancel")
    await circuits.run_until(run_id, "cancelled")
    assert time.monotonic() - started_at < 10, "it does not wait for the pause to end"
    assert len(upstream.at("/stopped")) == calls


async def test_run_waiting_for_a_circuit_fails_at_its_deadline(circuits: Stack, upstream: Receiver) -> None:
    await open_circuit(circuits, upstream, "stopped")
    run_id = await task(circuits, "stopped", timeout=1)
    run = await circuits.run_until(run_id, "failed")
    assert dict(run["error"])["code"] in ("CircuitOpen", "DeadlineExceeded")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "script",
    [reply_script({"detail": "no"}, 422), reply_script({}, 429), reply_script({"detail": "no key"}, 401)],
    ids=["refuses", "asks for a pause", "refuses the key"],
)
async def test_rejections_and_rate_limits_do_not_open_the_circuit(
    circuits: Stack, upstream: Receiver, script: Script
) -> None:
    upstream.by_path["/refusing"] = script
    await asyncio.gather(*(circuits.query(agent="refusing", timeout=1) for _ in range(6)))
    assert (await circuit(circuits, "refusing"))["state"] == "closed"


async def test_short_client_timeout_does_not_open_the_circuit(circuits: Stack, upstream: Receiver) -> None:
    upstream.by_path["/slow"] = hangs
    answers = await asyncio.gather(*(circuits.query(agent="slow", timeout=0.5) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {504}
    assert (await circuit(circuits, "slow"))["state"] == "closed"


async def test_interrupted_streams_open_the_circuit(circuits: Stack, upstream: Receiver) -> None:
    upstream.by_path["/streamed"] = streams(*events({"text": "a"}), resets=True)

    async def read_lines() -> str:
        body = {"query": "x", "agent": "streamed"}
        async with circuits.http.stream("POST", "/api/agent/stream", json=body) as answer:
            return (await answer.aread()).decode()

    for lines in await asyncio.gather(*(read_lines() for _ in range(4))):
        assert "event: error" in lines
        assert "circuit-open" in lines, "not tried again, since it is known to fail"
    assert 4 <= len(upstream.at("/streamed")) <= 7, "20 without a circuit"


async def test_temporal_ui_shows_the_state_of_the_circuit(circuits: Stack, upstream: Receiver) -> None:
    await open_circuit(circuits, upstream, "by-hand")
    handle = circuits.temporal.get_workflow_handle(circuit_workflow_id("by-hand"))
    state: OpenCircuit = await (await handle.describe()).memo_value("state", type_hint=OpenCircuit)
    assert state.consecutive_openings == 1
    history = await handle.fetch_history()
    assert len(history.events) < 10, "transitions only"


async def test_failures_of_one_tenant_alone_open_no_circuit_that_others_use(
    circuits: Stack, upstream: Receiver
) -> None:
    """The agent fails on one tenant's requests, and answers the others; then it fails on everybody's."""
    upstream.by_path["/shared"] = OK
    for _ in range(2):
        assert await call_agent(circuits.temporal, "globex", "shared") is None
    upstream.by_path["/shared"] = 500
    failed = [await call_agent(circuits.temporal, "acme", "shared", timeout=1) for _ in range(6)]
    assert all(failed)
    assert (await circuit(circuits, "shared"))["state"] == "closed"
    upstream.by_path["/shared"] = OK
    assert await call_agent(circuits.temporal, "globex", "shared") is None
    upstream.by_path["/shared"] = 500
    async with asyncio.timeout(20):
        while (await circuit(circuits, "shared"))["state"] == "closed":
            await call_agent(circuits.temporal, "globex", "shared", timeout=1)
