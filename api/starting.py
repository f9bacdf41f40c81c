"""Starts runs: one way for all patterns."""

from dataclasses import dataclass, field
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.common import (
    Priority,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from adapters.search_attributes import keywords
from api.gateway import API_PREFIX, Gateway
from api.idempotency import fingerprint
from api.listing import find_execution
from api.problems import Kind, ProblemError, invalid
from api.request_id import request_id, traceparent
from api.webhook_requests import webhook_of
from contracts.agent import AgentRequest, Origin, WorkflowTarget
from contracts.analysis import AnalysisInput
from contracts.documents import Document
from contracts.hybrid import ROUTING, HybridInput, Route, Routing
from contracts.identity import keyed_id, new_id, workflow_id
from contracts.jobs import FanOut, JobInput
from contracts.payload import JsonObject
from contracts.requests import StartOptions
from contracts.runs import (
    DEADLINE,
    ID_PREFIXES,
    RUN_ATTRIBUTES,
    WORKFLOW_TYPES,
    Pattern,
    RunInput,
    RunResult,
    batch_queue,
    deadline_after,
    stream_queue,
)
from contracts.webhooks import WEBHOOK, Webhook

_SUMMARY_LENGTH = 160


@dataclass(frozen=True)
class Start:
    """What to start: a pattern, for a tenant, out of a body, with the key the client gave."""

    pattern: Pattern
    tenant: str
    body: StartOptions
    task: str
    key: str | None
    query: str | None = None
    context: JsonObject = field(default_factory=dict)
    data: JsonObject = field(default_factory=dict)
    fan_out: FanOut | None = None
    document: Document | None = None
    routing: Routing | None = None

    @property
    def is_long(self) -> bool:
        """Whether nobody waits for it: it must not stand before what somebody waits for."""
        return self.pattern is Pattern.QUEUE or (self.routing is not None and self.routing.chosen is Route.QUEUE)

    @property
    def is_streamed(self) -> bool:
        """Whether somebody reads along."""
        routed = self.routing is not None and self.routing.chosen is Route.STREAMING
        return self.pattern is Pattern.STREAMING or routed

    @property
    def is_waited_for(self) -> bool:
        """Whether the client would rather hear at once that its agent is down."""
        return self.pattern in (Pattern.SYNCHRONOUS, Pattern.STREAMING, Pattern.HYBRID)


@dataclass(frozen=True)
class Started:
    """A run that exists, and whether an earlier request with the same key began it."""

    run_id: str
    handle: WorkflowHandle[Any, RunResult]
    replayed: bool


async def start_run(gateway: Gateway, start: Start) -> Started:
    """Starts the run, or finds the one that this key started.

    Raises ProblemError: an unknown agent, one that is left alone since it fails (unless nobody waits for the answer),
    a key that belongs to another body.
    """
    check_room(gateway)
    agent = known_agent(gateway, start.body.agent)
    prefix = ID_PREFIXES[start.pattern]
    run_id = keyed_id(prefix, start.tenant, start.pattern, start.key) if start.key else new_id(prefix)
    try:
        if start.is_waited_for:
            await _check_circuit(gateway, start, agent, run_id)
        handle = await _start_workflow(gateway, start, agent, run_id)
    except WorkflowAlreadyStartedError:
        return Started(run_id, await _same_run(gateway, start, run_id), replayed=True)
    return Started(run_id, handle, replayed=False)


def check_room(gateway: Gateway) -> None:
    """Raises the problem of a full disk: what is accepted must be kept."""
    if gateway.disk.is_low:
        raise ProblemError(
            Kind.STORAGE_FULL, "This gateway has no room to keep anything new. Try again later.", retry_after=10
        )


def known_agent(gateway: Gateway, name: str | None) -> str:
    """The agent that is meant. Raises the problem of one that there is not."""
    if name is None:
        return gateway.default_agent
    if name not in gateway.agents:
        raise invalid("/agent", f"there is no agent {name}; there are: {', '.join(sorted(gateway.agents))}")
    return name


async def _check_circuit(gateway: Gateway, start: Start, agent: str, run_id: str) -> None:
    """Raises the problem of an agent that is left alone; for a run that there is already, what its start would."""
    seconds = await gateway.circuits.refusal(agent)
    if seconds is None:
        return
    if start.key and await find_execution(gateway, workflow_id(start.tenant, run_id)) is not None:
        raise WorkflowAlreadyStartedError(run_id, WORKFLOW_TYPES[start.pattern])
    raise ProblemError(
        Kind.CIRCUIT_OPEN,
        f"The agent {agent} fails, and is left alone for a while. Send the request again then, or queue it by POST "
        f"{API_PREFIX}/tasks or /jobs, which wait for the agent by themselves.",
        retry_after=seconds,
    )


async def _start_workflow(gateway: Gateway, start: Start, agent: str, run_id: str) -> WorkflowHandle[Any, RunResult]:
    body = start.body
    is_job = start.is_long
    total = {"total": len(start.fan_out.items)} if start.fan_out else {}
    called_back = {WEBHOOK: True} if body.webhook_url else {}
    routed = {ROUTING: start.routing} if start.routing else {}
    handle: WorkflowHandle[Any, RunResult] = await gateway.client.start_workflow(
        WORKFLOW_TYPES[start.pattern],
        _input(
            start,
            agent,
            run_id,
            webhook_of(gateway, start.tenant, run_id, body),
            target=gateway.targets.get(agent),
            published=gateway.interactions,
        ),
        id=workflow_id(start.tenant, run_id),
        task_queue=_queue(gateway, start),
        result_type=RunResult,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        memo={
            "fingerprint": fingerprint(body),
            "metadata": body.metadata,
            DEADLINE: deadline_after(body.timeout),
            **total,
            **called_back,
            **routed,
        },
        search_attributes=keywords(RUN_ATTRIBUTES, (start.pattern, agent, start.task, start.tenant)),
        static_summary=_summary(start, agent),
        static_details=f"Chosen: **{start.routing.chosen}**. {start.routing.because}" if start.routing else None,
        priority=Priority(priority_key=body.priority, fairness_key=start.tenant),
        # The worker in this process, if there is one, gets the first task with the answer to the start. Not for jobs:
        # accepting one must not wait behind working on the others.
        request_eager_start=not is_job,
    )
    return handle


def _queue(gateway: Gateway, start: Start) -> str:
    """Long work and streams have slots of their own: neither holds up what somebody waits for."""
    if start.is_long:
        return batch_queue(gateway.task_queue)
    return stream_queue(gateway.task_queue) if start.is_streamed else gateway.task_queue


def _input(
    start: Start, agent: str, run_id: str, webhook: Webhook | None, *, target: WorkflowTarget | None, published: bool
) -> RunInput:
    request = AgentRequest(
        run_id=run_id,
        task=start.task,
        query=start.query,
        context=start.context,
        data=start.data,
        params=start.body.params,
        metadata=start.body.metadata,
    )
    run = RunInput(
        agent=agent,
        request=request,
        timeout=start.body.timeout,
        origin=Origin(request_id=request_id(), traceparent=traceparent()),
        target=target,
        opens_stream=start.is_streamed,
        webhook=webhook,
        published=published,
    )
    if start.pattern is Pattern.QUEUE:
        return JobInput(**dict(run), fan_out=start.fan_out)
    if start.document is not None:
        return AnalysisInput(**dict(run), document=start.document, opens_call=True)
    if start.routing is not None:
        return HybridInput(**dict(run), routing=start.routing)
    return run


def _summary(start: Start, agent: str) -> str:
    """The line that stands for the run in the Temporal UI."""
    said = " ".join((start.query or "").split())
    if len(said) > _SUMMARY_LENGTH:
        said = said[: _SUMMARY_LENGTH - 1] + "…"
    return f"{agent} · {start.task}" + (f" · {said}" if said else "")


async def _same_run(gateway: Gateway, start: Start, run_id: str) -> WorkflowHandle[Any, RunResult]:
    handle: WorkflowHandle[Any, RunResult] = gateway.client.get_workflow_handle(
        workflow_id(start.tenant, run_id), result_type=RunResult
    )
    memo = await (await handle.describe()).memo()
    if memo.get("fingerprint") != fingerprint(start.body):
        raise ProblemError(
            Kind.KEY_REUSED,
            "This Idempotency-Key came with another body before. Use a new key for a new request.",
            run_id=run_id,
        )
    return handle
