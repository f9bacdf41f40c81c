"""Records the histories that tests/test_replay.py replays: `python -m tests.record_histories`.

Run it for new workflows and new paths. A history that was released stays as it is: it proves that old runs continue
under new code.
"""

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowFailureError
from temporalio.contrib.workflow_streams import PublishEntry, PublishInput
from temporalio.service import RPCError
from temporalio.worker import Worker

from sevenfold.contracts.access.api_keys import generate_key
from sevenfold.contracts.access.principals import Scope
from sevenfold.contracts.access.tenant_registry import (
    REGISTRY_WORKFLOW_ID,
    KeyRecord,
    LastUse,
    PutKeyInput,
    PutTenantInput,
    RotateKeyInput,
    TenantRecord,
)
from sevenfold.contracts.agents.circuits import CIRCUIT_MEMO, OpenCircuit, circuit_workflow_id, control_task_queue
from sevenfold.contracts.agents.limits import limits_workflow_id
from sevenfold.contracts.agents.usage import DayUsage, UsageFlush, UsageTotals
from sevenfold.contracts.events.event_driven import build_reaction_id, ordering_workflow_id
from sevenfold.contracts.identity import RESERVED_TENANTS, new_id, parse_public_id
from sevenfold.contracts.operations.erasure import ErasureInput, erasure_workflow_id
from sevenfold.contracts.webhooks.delivery import delivery_workflow_id
from tests.support import durable_histories, endpoint_histories, message_histories
from tests.support.child_workflows import Child
from tests.support.events import EVENTS, LETTERS, event, published, subscribed, tree
from tests.support.receivers import SECRET, Answer, running_receiver
from tests.support.stack import Stack, running_stack

HISTORIES = Path(__file__).parent / "histories"


async def _inline(stack: Stack) -> str:
    return str((await stack.query("Analyze this customer feedback", agent="echo")).json()["queryId"])


async def _adopted(stack: Stack) -> str:
    return str((await stack.query(agent="careful", params={"seconds": 1.5})).json()["queryId"])


async def _retried(stack: Stack) -> str:
    return str((await stack.query(agent="flaky")).json()["queryId"])


async def _refused(stack: Stack) -> str:
    return str((await stack.query(agent="hopeless")).json()["runId"])


async def _deadline_exceeded(stack: Stack) -> str:
    return str((await stack.query(agent="careful", params={"seconds": 9}, timeout=1.5)).json()["runId"])


async def _cancelled_by_signal(stack: Stack) -> str:
    answer = await stack.query(agent="careful", params={"seconds": 9}, headers={"Prefer": "wait=1"})
    run_id = str(answer.json()["queryId"])
    await stack.temporal.get_workflow_handle(f"default:{run_id}").signal("cancel")
    await stack.run_until(run_id, "cancelled")
    return run_id


async def _task(stack: Stack, **body: object) -> str:
    return str((await stack.http.post("/api/agent/tasks", json={"task": "work", **body})).json()["taskId"])


async def _polled(stack: Stack) -> str:
    run_id = await _task(stack, agent="flaky")
    await stack.run_until(run_id, "completed")
    return run_id


async def _polled_cancelled_by_signal(stack: Stack) -> str:
    run_id = await _task(stack, agent="careful", params={"seconds": 9})
    await asyncio.sleep(1)
    await stack.temporal.get_workflow_handle(f"default:{run_id}").signal("cancel")
    await stack.run_until(run_id, "cancelled")
    return run_id


async def _job(stack: Stack, until: str = "completed", **body: object) -> str:
    answer = await stack.http.post("/api/agent/jobs", json={"task": "work", **body})
    run_id = str(answer.json()["jobId"])
    if until == "cancelled":
        await asyncio.sleep(1)
        await stack.temporal.get_workflow_handle(f"default:{run_id}").signal("cancel")
    await stack.run_until(run_id, until)
    return run_id


async def _queued_whole(stack: Stack) -> str:
    return await _job(stack, agent="echo", data={"text": "whole"})


async def _queued_items(stack: Stack) -> str:
    return await _job(stack, agent="item", data={"items": ["a", "bad", "flaky"] * 20}, concurrency=60)


async def _queued_too_many_failures(stack: Stack) -> str:
    return await _job(stack, "failed", agent="item", data={"items": ["bad"] * 60}, concurrency=60, maxFailures=3)


async def _queued_cancelled_by_signal(stack: Stack) -> str:
    return await _job(stack, "cancelled", agent="item", data={"items": ["slow"] * 2_000}, concurrency=60)


async def _stream(stack: Stack, until: str = "completed", **body: object) -> str:
    async with stack.http.stream("POST", "/api/agent/stream", json={"query": "hi", **body}) as answer:
        run_id = answer.headers["X-Stream-Id"]
        if until == "cancelled":
            await asyncio.sleep(1)
            await stack.temporal.get_workflow_handle(f"default:{run_id}").signal("cancel")
        await answer.aread()
    await stack.run_until(run_id, until)
    return run_id


async def _streamed(stack: Stack) -> str:
    return await _stream(stack, agent="simulator", params={"seconds": 3, "steps": 60, "text": "word " * 60})


async def _streamed_retried(stack: Stack) -> str:
    return await _stream(stack, agent="simulator", params={"failures": 1, "failAt": 5, "steps": 10})


async def _stream_segment(stack: Stack) -> str:
    segment = f"{new_id('str')}:segment:2"
    word = base64.b64encode(Payload(data=b"word").SerializeToString()).decode()
    batch = PublishInput(items=[PublishEntry(topic="events", data=word)], publisher_id="recorded", sequence=1)
    assert await stack.streams.log.start_segment(
        f"default:{segment}", datetime.now(UTC) + timedelta(seconds=30), batch
    )
    handle = stack.temporal.get_workflow_handle(f"default:{segment}")
    await handle.signal("finish")
    await handle.result()
    return segment


async def _stream_answered(stack: Stack) -> str:
    return await _stream(stack, agent="echo")


async def _stream_refused(stack: Stack) -> str:
    return await _stream(stack, "failed", agent="hopeless")


async def _stream_cancelled_by_signal(stack: Stack) -> str:
    return await _stream(stack, "cancelled", agent="careful", params={"seconds": 9})


async def _cleaned_up(stack: Stack) -> str:
    run_id = new_id("run")
    await stack.temporal.execute_workflow(
        "PayloadCleanup", id=f"default:{run_id}", task_queue=stack.settings.task_queue
    )
    return run_id


async def _queried(stack: Stack, until: str, answers: list[Answer], **document: object) -> tuple[str, str]:
    """A run with a webhook, once its delivery has the state; the ids of both."""
    async with running_receiver(answers) as receiver:
        body = {"webhookUrl": receiver.url(), "webhookSecret": SECRET, "document": "A good text.", **document}
        task = (await stack.http.post("/api/agent/analyze", json=body)).json()["taskId"]
        delivery_id = parse_public_id(delivery_workflow_id(f"default:{task}"))
        async with asyncio.timeout(20):
            while (await stack.run(task))["webhook"]["state"] != until:  # type: ignore[index]
                await asyncio.sleep(0.05)
    return task, delivery_id


async def _analyzed(stack: Stack) -> str:
    return (await _queried(stack, "delivered", [204]))[0]


async def _analyzed_by_activity(stack: Stack) -> str:
    return (await _queried(stack, "delivered", [204], agent="simulator", params={"seconds": 1.5}))[0]


async def _unreadable(stack: Stack) -> str:
    return (await _queried(stack, "delivered", [204], document={"base64": "JVBERi0xLjQK"}))[0]


async def _delivered(stack: Stack) -> str:
    return (await _queried(stack, "delivered", [500, 503]))[1]


async def _exhausted(stack: Stack) -> str:
    return (await _queried(stack, "exhausted", [500] * 3))[1]


async def _redelivered(stack: Stack) -> str:
    _, delivery_id = await _queried(stack, "exhausted", [410])
    answer = await stack.http.post(f"/api/agent/webhooks/deliveries/{delivery_id}/redeliver")
    assert answer.status_code == 202
    with suppress(WorkflowFailureError):  # its receiver is gone
        await stack.temporal.get_workflow_handle(f"default:{delivery_id}").result()
    return delivery_id


async def _failing_endpoint(stack: Stack) -> str:
    await _queried(stack, "exhausted", [500] * 3)
    handle = stack.temporal.get_workflow_handle("default:receiver:127.0.0.1")
    await handle.execute_update("acquire_probe")
    await handle.signal("record_success")
    await handle.result()
    return "receiver:127.0.0.1"


async def _event(stack: Stack, name: str, until: str = "completed", agent: str = "echo", **terms: object) -> str:
    """An event of a type of its own that one subscription is for; its id, once its reaction is so."""
    await subscribed(stack, name, f"h.{name}", agent, **terms)
    event_id = await published(stack.http, event(f"h.{name}", {"key": "k", "poison": True}))
    async with asyncio.timeout(60):
        while not (
            (found := await tree(stack.http, event_id))["reactions"] and found["reactions"][0]["status"] == until
        ):
            await asyncio.sleep(0.05)
    return event_id


async def _dispatched(stack: Stack) -> str:
    return await _event(stack, "dispatched", publishes="h.derived")


async def _dispatched_in_order(stack: Stack) -> str:
    return await _event(stack, "in-order", orderBy="data.key", concurrency=2)


async def _event_refused(stack: Stack) -> str:
    event_id = await published(stack.http, event("h.refused", hops=17))
    await stack.run_until(event_id, "failed")
    return event_id


async def _event_cancelled_by_signal(stack: Stack) -> str:
    inside = await _event(stack, "held-up", "processing", "careful", params={"seconds": 60}, orderBy="data.key")
    waits = await published(stack.http, event("h.held-up", {"key": "k"}))
    await asyncio.sleep(0.5)
    await stack.temporal.get_workflow_handle(f"default:{waits}").signal("cancel")
    await stack.run_until(waits, "cancelled")
    await stack.http.post(f"/api/agent/runs/{build_reaction_id('default', inside, 'held-up')}/cancel")
    return waits


async def _reacted(stack: Stack) -> str:
    return build_reaction_id(
        "default", await _event(stack, "reacted", publishes="h.derived", orderBy="data.key"), "reacted"
    )


async def _reaction_failed(stack: Stack) -> str:
    return build_reaction_id(
        "default", await _event(stack, "poisoned", "failed", "choosy", orderBy="data.key"), "poisoned"
    )


async def _ordering_semaphore(stack: Stack) -> str:
    for _ in range(3):
        await _event(stack, "semaphore", orderBy="data.key")
    semaphore = ordering_workflow_id("default", "semaphore", "=k")
    await stack.temporal.get_workflow_handle(semaphore).result()
    return semaphore.removeprefix("default:")


async def _rejected(stack: Stack) -> str:
    body = event("h.rejected", 1)
    await published(stack.http, body)
    await stack.http.post(EVENTS, json={**body, "data": 2})
    async with asyncio.timeout(30):
        while not (letters := (await stack.http.get(LETTERS, params={"kind": "rejected"})).json()["items"]):
            await asyncio.sleep(0.05)
    return str(letters[0]["id"])


async def _registry(stack: Stack) -> str:
    await subscribed(stack, "passing", "h.passing")
    await stack.http.delete("/api/agent/subscriptions/passing")
    await stack.http.delete("/api/agent/subscriptions/passing")
    return "subscriptions"


async def _usage_ledger(stack: Stack) -> str:
    month = f"{datetime.now(UTC):%Y-%m}"
    totals = UsageTotals(calls=1, output_tokens=5)
    for sequence in (1, 1, 2):
        flush = UsageFlush(process="p", sequence=sequence, days={f"{month}-01": DayUsage(agents={"a": totals})})
        await stack.services.quotas.ledgers.record("default", month, flush)
    await asyncio.sleep(1)
    return f"usage:{month}"


async def _hybrid(stack: Stack, until: str = "completed", **body: object) -> str:
    request_body = {"query": "hi", "agent": "careful", **body}
    run_id = str((await stack.http.post("/api/agent/hybrid", json=request_body)).json()["hybridId"])
    if until == "cancelled":
        await stack.temporal.get_workflow_handle(f"default:{run_id}").signal("cancel")
    await stack.run_until(run_id, until)
    return run_id


async def _hybrid_short(stack: Stack) -> str:
    return await _hybrid(stack, agent="flaky")


async def _hybrid_long(stack: Stack) -> str:
    return await _hybrid(stack, durationEstimate=60, params={"seconds": 1.5})


async def _hybrid_streamed(stack: Stack) -> str:
    return await _hybrid(stack, durationEstimate=60, stream=True, params={"seconds": 1.5})


async def _hybrid_cancelled_by_signal(stack: Stack) -> str:
    return await _hybrid(stack, "cancelled", durationEstimate=60, params={"seconds": 9})


MORE_AGENTS = """
[agents.mendable]
kind = "python"
target = "tests.support.agents:mendable"
circuit = {minimum_calls = 2, open_seconds = 1, max_open_seconds = 2}

[agents.few]
kind = "python"
target = "tests.support.agents:echo"
max_concurrency = 3
rate = "100/s"

[agents.child]
kind = "workflow"
workflow = "Child"
task_queue = "children"
"""


@asynccontextmanager
async def recorded_stack(directory: Path, **changes: object) -> AsyncIterator[Stack]:
    """What the scenarios need."""
    async with (
        running_stack(directory, more_config=MORE_AGENTS + durable_histories.AGENTS, **changes) as stack,
        Worker(stack.temporal, task_queue="children", workflows=[Child]),
    ):
        yield stack


def workflow_of(name: str) -> str:
    """The workflow id that a scenario's outcome means."""
    has_no_tenant = name.partition(":")[0] in RESERVED_TENANTS
    return name if has_no_tenant else f"default:{name}"


async def _circuit(stack: Stack) -> str:
    broken = stack.settings.data_dir / "broken"
    broken.touch()
    body = {"agent": "mendable", "params": {"broken": str(broken)}, "timeout": 1}
    for _ in range(2):
        await stack.query(**body)
    handle = stack.temporal.get_workflow_handle(circuit_workflow_id("mendable"))
    async with asyncio.timeout(20):
        while await _openings(stack) < 2:  # until a probe has failed
            await stack.query(**body)
            await asyncio.sleep(0.2)
    broken.unlink()
    async with asyncio.timeout(20):
        while (await stack.query(**{**body, "timeout": 5})).status_code != 200:
            await asyncio.sleep(0.2)
    await handle.result()
    return circuit_workflow_id("mendable")


async def _openings(stack: Stack) -> int:
    try:
        description = await stack.temporal.get_workflow_handle(circuit_workflow_id("mendable")).describe()
    except RPCError:  # a query that came too late to fail has not opened it
        return 0
    state: OpenCircuit = await description.memo_value(CIRCUIT_MEMO, type_hint=OpenCircuit)
    return state.consecutive_openings


async def _limits(stack: Stack) -> str:
    for _ in range(3):
        await stack.query(agent="few")
        await asyncio.sleep(1)
    return limits_workflow_id("few")


async def _tenant_registry(stack: Stack) -> str:
    registry = stack.services.access.registry
    now, new = datetime.now(UTC), generate_key()
    tenant = TenantRecord(name="acme", agents=["echo"], created_at=now)
    await registry.put_tenant(PutTenantInput(tenant=tenant, create_only=True))
    key = KeyRecord(id=new.key_id, tenant="acme", hash=new.hash, scopes=[Scope.RUNS_READ], created_at=now)
    for one in (key, key.model_copy(update={"id": "a" * 12})):
        await registry.put_key(PutKeyInput(key=one))
    successor = generate_key()
    await registry.rotate_key(
        RotateKeyInput(
            tenant="acme",
            key_id=key.id,
            new_id=successor.key_id,
            new_hash=successor.hash,
            overlap_seconds=60,
        )
    )
    await registry.record_use(LastUse(keys={key.id: now, "b" * 12: now}))
    await registry.remove_key("a" * 12)
    await registry.put_tenant(PutTenantInput(tenant=tenant.model_copy(update={"is_erasing": True})))
    await registry.remove_tenant("acme")
    return REGISTRY_WORKFLOW_ID


async def _tenant_erasure(stack: Stack) -> str:
    erasure = ErasureInput(tenant="acme", requested_at=datetime.now(UTC), grace_seconds=1)
    await stack.temporal.execute_workflow(
        "TenantErasure",
        erasure,
        id=erasure_workflow_id("acme"),
        task_queue=control_task_queue(stack.settings.task_queue),
    )
    return erasure_workflow_id("acme")


async def _child(stack: Stack, **params: object) -> str:
    answer = (await stack.query(agent="child", params=params)).json()
    return str(answer.get("queryId") or answer["runId"])


async def _child_replied(stack: Stack) -> str:
    return await _child(stack, do="wait", seconds=1)


async def _child_retried(stack: Stack) -> str:
    return await _child(stack, do="fail twice")


async def _child_refused(stack: Stack) -> str:
    return await _child(stack, do="refuse")


async def _child_deadline_exceeded(stack: Stack) -> str:
    answer = await stack.query(agent="child", params={"do": "wait"}, timeout=1)
    assert "runId" in answer.text, (answer.status_code, answer.text)
    return str(answer.json()["runId"])


async def _child_cancelled_by_signal(stack: Stack) -> str:
    run_id = await _task(stack, agent="child", params={"do": "wait"})
    await asyncio.sleep(1)
    await stack.temporal.get_workflow_handle(f"default:{run_id}").signal("cancel")
    await stack.run_until(run_id, "cancelled")
    return run_id


SCENARIOS = {
    "synchronous_inline": _inline,
    "synchronous_adopted": _adopted,
    "synchronous_retried": _retried,
    "synchronous_refused": _refused,
    "synchronous_deadline_exceeded": _deadline_exceeded,
    "synchronous_cancelled_by_signal": _cancelled_by_signal,
    "polling_done": _polled,
    "polling_cancelled_by_signal": _polled_cancelled_by_signal,
    **message_histories.SCENARIOS,
    "queue_whole": _queued_whole,
    "queue_items": _queued_items,
    "queue_too_many_failures": _queued_too_many_failures,
    "queue_cancelled_by_signal": _queued_cancelled_by_signal,
    "streaming_done": _streamed,
    "streaming_retried": _streamed_retried,
    "streaming_answered": _stream_answered,
    "streaming_refused": _stream_refused,
    "stream_segment": _stream_segment,
    "streaming_cancelled_by_signal": _stream_cancelled_by_signal,
    "webhook_done": _analyzed,
    "webhook_adopted": _analyzed_by_activity,
    "webhook_unreadable": _unreadable,
    "delivery_retried": _delivered,
    "delivery_exhausted": _exhausted,
    "delivery_redelivered": _redelivered,
    "endpoint_failing": _failing_endpoint,
    "event_dispatched": _dispatched,
    "event_dispatched_in_order": _dispatched_in_order,
    "event_refused": _event_refused,
    "event_cancelled_by_signal": _event_cancelled_by_signal,
    "reaction_published": _reacted,
    "reaction_failed": _reaction_failed,
    "ordering_semaphore": _ordering_semaphore,
    "event_rejected": _rejected,
    "subscription_registry": _registry,
    "usage_ledger": _usage_ledger,
    "hybrid_short": _hybrid_short,
    "hybrid_long": _hybrid_long,
    "hybrid_streamed": _hybrid_streamed,
    "hybrid_cancelled_by_signal": _hybrid_cancelled_by_signal,
    "payload_cleanup": _cleaned_up,
    "child_replied": _child_replied,
    "child_retried": _child_retried,
    "child_refused": _child_refused,
    "child_deadline_exceeded": _child_deadline_exceeded,
    "child_cancelled_by_signal": _child_cancelled_by_signal,
    "circuit": _circuit,
    "limits": _limits,
    "tenant_registry": _tenant_registry,
    "tenant_erasure": _tenant_erasure,
    **endpoint_histories.SCENARIOS,
    **durable_histories.SCENARIOS,
}


async def record() -> None:
    """Writes the histories that are not there yet."""
    with tempfile.TemporaryDirectory() as directory:
        async with recorded_stack(Path(directory)) as stack:
            for name, scenario in SCENARIOS.items():
                path = HISTORIES / f"{name}.json"
                if not path.exists():
                    run_id = await scenario(stack)
                    history = await stack.temporal.get_workflow_handle(workflow_of(run_id)).fetch_history()
                    path.write_text(history.to_json() + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(record())
