"""The hand-over of a call from its opening to its activity, in the cases that a whole stack rarely shows."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from sevenfold.activities.runs.agent_calls import AgentCalls
from sevenfold.activities.runs.call_meter import CallMeter
from sevenfold.activities.runs.durable_call import DurableTerms, RunDurableCall
from sevenfold.activities.runs.failures import FailureRules
from sevenfold.activities.runs.inline_calls import CallsInFlight
from sevenfold.activities.runs.spending import Spending
from sevenfold.adapters.agents.admission.admission import AdmissionControl
from sevenfold.adapters.agents.admission.circuit_breakers import CircuitBreakers
from sevenfold.adapters.agents.registry import AgentRegistry
from sevenfold.adapters.streams.publisher import StreamAttempt, StreamPublisher
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.temporal.step_store import StepStore
from sevenfold.contracts.agents.interface import Agent, AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply
from sevenfold.contracts.agents.usage import UsageTotals
from sevenfold.contracts.runs.calls import AgentCall, CallHeartbeat, InlineStart
from tests.support.processes import until
from tests.support.stack import Stack


class Slow:
    """Works until it has done enough. Counts its calls and its cancellations."""

    def __init__(self) -> None:
        self.enough = asyncio.Event()
        self.started = 0
        self.cancelled = 0

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        self.started += 1
        try:
            yield Progress(percent=50)
            await self.enough.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        yield Reply(response="done")


def call(run_id: str = "qry_x") -> AgentCall:
    return AgentCall(
        agent="slow",
        request=AgentRequest(run_id=run_id, task="query"),
        deadline=datetime.now(UTC) + timedelta(seconds=30),
    )


# Temporal's id of an execution that does not exist.
EXECUTION = "0a4a6e5c-0000-4000-8000-000000000000"


def environment_of(stack: Stack, workflow_id: str = "default:qry_x") -> ActivityEnvironment:
    environment = ActivityEnvironment(client=stack.temporal)
    environment.info = replace(environment.info, workflow_id=workflow_id, workflow_run_id=EXECUTION)
    return environment


def calls_of(stack: Stack, agent: Agent, *, inline_seconds: float = 0.05, max_calls: int = 10) -> AgentCalls:
    quotas = stack.services.quotas
    admission = AdmissionControl(CircuitBreakers(stack.temporal, "sevenfold", {}), {}, quotas.budgets.check_call)
    return AgentCalls(
        AgentRegistry({"slow": agent}),
        admission,
        stack.streams,
        DiskSpace(None),
        CallMeter(quotas.meter, {}),
        rules=FailureRules(),
        inline_timeout=timedelta(seconds=inline_seconds),
        max_calls=max_calls,
    )


async def test_activity_adopts_the_inline_call_instead_of_calling_again(stack: Stack) -> None:
    agent = Slow()
    calls = calls_of(stack, agent)
    assert await environment_of(stack).run(calls.start_call_inline, call()) == InlineStart(is_running=True)
    heartbeats: list[object] = []
    environment = environment_of(stack)
    environment.on_heartbeat = lambda *details: heartbeats.extend(details)
    running = asyncio.create_task(environment.run(calls.call_agent, call()))
    await until(lambda: heartbeats)
    agent.enough.set()
    outcome = await running
    assert outcome.reply.response == "done"
    assert outcome.attempts == 1
    assert agent.started == 1
    assert heartbeats[0] == CallHeartbeat(
        progress=Progress(percent=50), agent_called=True, usage=UsageTotals(calls=1)
    )


class Counting:
    """Replies with the number of the attempt."""

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        yield Reply(data={"attempt": request.attempt})


class Endless:
    """Never comes to an end."""

    async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
        while True:
            yield Delta(text="word " * 100_000)


async def test_endless_text_is_rejected(stack: Stack) -> None:
    with pytest.raises(ApplicationError, match="more than 20 MB") as failed:
        await environment_of(stack).run(calls_of(stack, Endless()).call_agent, call())
    assert failed.value.type == "AgentRejected"


async def test_lost_inline_call_counts_as_an_attempt(stack: Stack) -> None:
    """Its readers get a reset, since they may have received a part of the lost attempt."""
    lost = call().model_copy(update={"started_inline": True})
    outcome = await environment_of(stack).run(calls_of(stack, Counting()).call_agent, lost)
    assert outcome.reply.data == {"attempt": 2}


async def test_repeated_inline_start_finds_its_running_call(stack: Stack) -> None:
    agent = Slow()
    calls = calls_of(stack, agent)
    for _ in range(3):
        assert await environment_of(stack).run(calls.start_call_inline, call()) == InlineStart(is_running=True)
    agent.enough.set()
    assert (await environment_of(stack).run(calls.call_agent, call())).reply.response == "done"
    assert agent.started == 1


async def test_call_that_nobody_adopts_is_cancelled(stack: Stack) -> None:
    agent = Slow()
    calls = CallsInFlight(10, adoption_seconds=0.1)
    publisher = StreamPublisher(
        stack.streams,
        "default:qry_x",
        StreamAttempt(1),
        datetime.now(UTC) + timedelta(seconds=30),
        awaits_adoption=True,
    )
    ledger = StepStore(stack.temporal, "default:qry_x", EXECUTION)
    durable = partial(RunDurableCall, ledger, DurableTerms("qry_x", 1))
    context = call().request_context.agent_context(call().deadline)
    calls.park(
        "qry_x",
        calls.start(agent, call().request, context, publisher, None, Spending(), None, name="a", durable=durable),
    )
    await until(lambda: agent.cancelled)
    assert agent.cancelled == 1
    assert calls.adopt("qry_x") is None


async def test_without_a_free_slot_no_call_starts_inline(stack: Stack) -> None:
    agent = Slow()
    calls = calls_of(stack, agent, max_calls=1)
    await environment_of(stack).run(calls.start_call_inline, call("qry_a"))
    assert await environment_of(stack).run(calls.start_call_inline, call("qry_b")) == InlineStart()
    assert agent.started == 1
    agent.enough.set()
    await environment_of(stack).run(calls.call_agent, call("qry_a"))
    assert agent.started == 1
    await calls.close()


async def test_parked_call_is_cancelled_on_shutdown(stack: Stack) -> None:
    agent = Slow()
    calls = calls_of(stack, agent)
    await environment_of(stack).run(calls.start_call_inline, call())
    await calls.close()
    assert agent.cancelled == 1


async def test_cancelled_activity_cancels_the_call(stack: Stack) -> None:
    agent = Slow()
    calls = calls_of(stack, agent)
    environment = environment_of(stack)
    running = asyncio.create_task(environment.run(calls.call_agent, call()))
    await until(lambda: agent.started)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert agent.cancelled == 1


async def test_repeated_inline_start_after_the_reply_returns_the_same_outcome(stack: Stack) -> None:
    # as when a signal arrives in the workflow task that makes the call: the server refuses its outcome
    agent = Slow()
    agent.enough.set()
    calls = calls_of(stack, agent, inline_seconds=5)
    first = await environment_of(stack).run(calls.start_call_inline, call())
    assert first.outcome is not None
    assert await environment_of(stack).run(calls.start_call_inline, call()) == first
    assert agent.started == 1
    await environment_of(stack).run(calls.start_call_inline, call("qry_y"))
    assert agent.started == 2, "another run is another call"
    await calls.close()


async def test_tenant_starts_no_more_calls_inline_than_its_share_while_others_call(stack: Stack) -> None:
    agent = Slow()
    calls = calls_of(stack, agent, max_calls=6)
    started = InlineStart(is_running=True)

    async def start(tenant: str, name: str) -> InlineStart:
        environment = environment_of(stack, f"{tenant}:qry_{tenant}_{name}")
        return await environment.run(calls.start_call_inline, call(f"qry_{tenant}_{name}"))

    assert [await start("acme", name) for name in "abcd"] == [started] * 4, "alone it may start as many as there are"
    assert await start("globex", "a") == started
    assert await start("acme", "e") == InlineStart(), "it holds more than its half already"
    assert await start("globex", "b") == started
    agent.enough.set()
    for tenant, names in (("acme", "abcd"), ("globex", "ab")):
        for name in names:
            run_id = f"qry_{tenant}_{name}"
            await environment_of(stack, f"{tenant}:{run_id}").run(calls.call_agent, call(run_id))
    assert agent.started == 6
    await calls.close()
