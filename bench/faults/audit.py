"""The second look, at the end of a phase: is everything still there, and was nothing done twice?"""

import asyncio
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowExecutionStatus

from bench.faults.api_client import problem_in
from bench.faults.ledger import Ledger, Run
from bench.faults.patterns import World
from bench.faults.stack import Stack
from sevenfold.contracts.identity import DEFAULT_TENANT, build_workflow_id

_AT_ONCE = 8
_SECONDS = 120.0

# Entity workflows: they live as long as they are used, and start again under their id.
_LASTING = (
    "SubscriptionRegistry",
    "UsageLedger",
    "CircuitBreaker",
    "AgentLimits",
    "EndpointHealth",
    "WebhookEndpoints",
    "OrderingSemaphore",
    "PayloadCleanup",
)


async def audit(stack: Stack, world: World, runs: list[Run]) -> None:
    """Read every acknowledged run again, count the agents' calls, and the workflows in Temporal."""
    ledger = stack.ledger
    began = time.monotonic()
    count_calls(stack.work / "journal", runs)
    count_copies(world, runs)
    for run in runs:
        if run.acknowledged and not run.ended and not run.trouble:
            run.lost = "was not followed to its end"
    await _read_again(world, runs)
    await _count_workflows(stack, runs, ledger)
    print(f"  audit: {len(runs)} runs in {time.monotonic() - began:.1f} s", flush=True)


def count_calls(journal: Path, runs: list[Run]) -> None:
    """Count from the journal how often each run's agent was called beyond once; find what was called for two runs,
    and what was called out of its turn.
    """
    calls: defaultdict[str, Counter[str]] = defaultdict(Counter)
    run_ids: defaultdict[str, set[str]] = defaultdict(set)
    for line in journal.read_text().splitlines() if journal.exists() else ():
        _, _, run_id, what = line.split(" ", 3)
        calls[what.partition("/")[0]][what] += 1
        run_ids[what].add(run_id)
    for run in runs:
        called = calls[run.key]
        run.calls_repeated = called.total() - len(called)
        doubled = [what for what in called if len(run_ids[what]) > 1]
        if doubled:
            run.doubled = run.doubled or f"the agent was called for two runs: {sorted(run_ids[doubled[0]])}"
        if run.ended and not called:
            run.lost = run.lost or "ended, and its agent was never called"
        # a Counter keeps the order in which its keys came first
        if run.pattern == "ordered events" and list(called) != sorted(called):
            run.lost = run.lost or f"out of order: {list(called)}"


def count_copies(world: World, runs: list[Run]) -> None:
    """Look once more at what came in by webhook and out of the broker: later copies have to bear the same id."""
    for run in runs:
        hooks = [post.id for post in world.mailbox.taken(f"/{run.key}")]
        messages = world.exchange.out(run.key) if world.exchange is not None else []
        for kind, ids in (("webhooks", set(hooks)), ("messages", set(messages))):
            if len(ids) > 1:
                run.doubled = run.doubled or f"{kind} with different ids: {sorted(ids)}"
        run.copies += max(0, len(hooks) - 1) + max(0, len(messages) - 1)


async def _read_again(world: World, runs: list[Run]) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(run: Run) -> None:
        async with slots:
            await _read_one(world, run)

    async with asyncio.timeout(_SECONDS):
        await asyncio.gather(*(one(run) for run in runs if run.acknowledged and run.ids))


async def _read_one(world: World, run: Run) -> None:
    """Check that the run still exists, has ended, and has the same result."""
    identity = sorted(run.ids)[0]
    path = f"/events/{identity}" if identity.startswith("evt_") else f"/runs/{identity}"
    found = await _read(world, path)
    if found is None:
        run.lost = run.lost or "unknown at the end"
    elif found["status"] in ("queued", "processing"):
        run.lost = run.lost or "still open at the end"
    elif run.lost.startswith("not ended") and found["status"] == "completed":
        world.api.ledger.note(f"{run}: {run.lost}, but it has by the end; no longer counted as lost")
        run.lost, run.ended = "", True
    elif run.response is not None and found["result"]["response"] != run.response:
        run.lost = run.lost or "another result than before"


async def _read(world: World, path: str) -> dict[str, Any] | None:
    for _ in range(20):
        answer = await world.api.once("GET", path)
        if answer is not None and answer.is_success:
            return dict(answer.json())
        if answer is not None and problem_in(answer).get("type", "").endswith("not-found"):
            return None
        await asyncio.sleep(0.5)
    return None


async def _count_workflows(stack: Stack, runs: list[Run], ledger: Ledger) -> None:
    """No workflow of a run has been started twice, and none is left open."""
    client = await Client.connect(stack.address)
    executions: Counter[str] = Counter()
    left_open: Counter[str] = Counter()
    examples: dict[str, str] = {}
    async for execution in client.list_workflows(page_size=500):
        executions[execution.id] += 1
        if execution.workflow_type not in _LASTING and execution.status is WorkflowExecutionStatus.RUNNING:
            left_open[execution.workflow_type] += 1
            examples[execution.workflow_type] = execution.id
    for run in runs:
        times = max((executions[build_workflow_id(DEFAULT_TENANT, identity)] for identity in run.ids), default=0)
        if times > 1:
            run.doubled = run.doubled or f"its workflow was started {times} times"
    for kind, count in left_open.items():
        ledger.note(f"{count} {kind} are open at the end, as visibility has it, such as {examples[kind]}")
    unlisted = [run for run in runs for one in run.ids if executions[build_workflow_id(DEFAULT_TENANT, one)] == 0]
    if unlisted:
        ledger.note(f"{len(unlisted)} runs are missing from visibility's list, such as {unlisted[0]}")
