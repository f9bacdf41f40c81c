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

from sevenfold.adapters.temporal.search_attributes import keyword_attributes
from sevenfold.api.dependencies import API_PREFIX, Gateway
from sevenfold.api.http.idempotency import fingerprint
from sevenfold.api.http.listing import find_execution
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field
from sevenfold.api.http.request_id import request_id, traceparent
from sevenfold.api.webhooks.requests import build_webhook
from sevenfold.contracts.agent import AgentRequest, RequestContext, WorkflowTarget
from sevenfold.contracts.analysis import AnalysisInput
from sevenfold.contracts.documents import Document
from sevenfold.contracts.hybrid import ROUTING_MEMO, HybridInput, Route, Routing
from sevenfold.contracts.identity import build_workflow_id, derive_id, new_id
from sevenfold.contracts.jobs import FanOut, JobInput
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.requests import StartOptions
from sevenfold.contracts.runs import (
    DEADLINE_MEMO,
    ID_PREFIXES,
    RUN_ATTRIBUTES,
    WORKFLOW_TYPES,
    Pattern,
    RunInput,
    RunResult,
    batch_task_queue,
    compute_deadline,
    stream_task_queue,
)
from sevenfold.contracts.webhooks import WEBHOOK_MEMO, Webhook

_SUMMARY_LENGTH = 160


@dataclass(frozen=True)
class StartSpec:
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
    def is_background(self) -> bool:
        """Whether nobody waits for it: it must not stand before what somebody waits for."""
        return self.pattern is Pattern.QUEUE or (self.routing is not None and self.routing.chosen is Route.QUEUE)

    @property
    def is_streamed(self) -> bool:
        """Whether somebody reads along."""
        routed = self.routing is not None and self.routing.chosen is Route.STREAMING
        return self.pattern is Pattern.STREAMING or routed

    @property
    def is_interactive(self) -> bool:
        """Whether the client would rather hear at once that its agent is down."""
        return self.pattern in (Pattern.SYNCHRONOUS, Pattern.STREAMING, Pattern.HYBRID)


@dataclass(frozen=True)
class StartedRun:
    """A run that exists, and whether an earlier request with the same key began it."""

    run_id: str
    handle: WorkflowHandle[Any, RunResult]
    replayed: bool


async def start_run(gateway: Gateway, spec: StartSpec) -> StartedRun:
    """Starts the run, or finds the one that this key started.

    Raises ProblemError: an unknown agent, one that is left alone since it fails (unless nobody waits for the answer),
    a key that belongs to another body.
    """
    check_storage(gateway)
    agent = resolve_agent(gateway, spec.body.agent)
    prefix = ID_PREFIXES[spec.pattern]
    run_id = derive_id(prefix, spec.tenant, spec.pattern, spec.key) if spec.key else new_id(prefix)
    try:
        if spec.is_interactive:
            await _check_circuit(gateway, spec, agent, run_id)
        handle = await _start_workflow(gateway, spec, agent, run_id)
    except WorkflowAlreadyStartedError:
        return StartedRun(run_id, await _find_replayed_run(gateway, spec, run_id), replayed=True)
    return StartedRun(run_id, handle, replayed=False)


def check_storage(gateway: Gateway) -> None:
    """Raises the problem of a full disk: what is accepted must be kept."""
    if gateway.disk.is_low:
        raise ProblemError(
            ProblemType.STORAGE_FULL,
            "This gateway has no room to keep anything new. Try again later.",
            retry_after=10,
        )


def resolve_agent(gateway: Gateway, name: str | None) -> str:
    """The agent that is meant. Raises the problem of one that there is not."""
    if name is None:
        return gateway.default_agent
    if name not in gateway.agents:
        raise invalid_field("/agent", f"there is no agent {name}; there are: {', '.join(sorted(gateway.agents))}")
    return name


async def _check_circuit(gateway: Gateway, spec: StartSpec, agent: str, run_id: str) -> None:
    """Raises the problem of an agent that is left alone; for a run that there is already, what its start would."""
    seconds = await gateway.circuit_breakers.retry_after(agent)
    if seconds is None:
        return
    if spec.key and await find_execution(gateway, build_workflow_id(spec.tenant, run_id)) is not None:
        raise WorkflowAlreadyStartedError(run_id, WORKFLOW_TYPES[spec.pattern])
    raise ProblemError(
        ProblemType.CIRCUIT_OPEN,
        f"The agent {agent} fails, and is left alone for a while. Send the request again then, or queue it by POST "
        f"{API_PREFIX}/tasks or /jobs, which wait for the agent by themselves.",
        retry_after=seconds,
    )


async def _start_workflow(
    gateway: Gateway, spec: StartSpec, agent: str, run_id: str
) -> WorkflowHandle[Any, RunResult]:
    body = spec.body
    is_job = spec.is_background
    total = {"total": len(spec.fan_out.items)} if spec.fan_out else {}
    webhook_memo = {WEBHOOK_MEMO: True} if body.webhook_url else {}
    routing_memo = {ROUTING_MEMO: spec.routing} if spec.routing else {}
    handle: WorkflowHandle[Any, RunResult] = await gateway.client.start_workflow(
        WORKFLOW_TYPES[spec.pattern],
        _build_input(
            spec,
            agent,
            run_id,
            build_webhook(gateway, spec.tenant, run_id, body),
            target=gateway.workflow_targets.get(agent),
            publish_interaction=gateway.publish_interactions,
        ),
        id=build_workflow_id(spec.tenant, run_id),
        task_queue=_task_queue(gateway, spec),
        result_type=RunResult,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        memo={
            "fingerprint": fingerprint(body),
            "metadata": body.metadata,
            DEADLINE_MEMO: compute_deadline(body.timeout),
            **total,
            **webhook_memo,
            **routing_memo,
        },
        search_attributes=keyword_attributes(RUN_ATTRIBUTES, (spec.pattern, agent, spec.task, spec.tenant)),
        static_summary=_build_summary(spec, agent),
        static_details=f"Chosen: **{spec.routing.chosen}**. {spec.routing.reason}" if spec.routing else None,
        priority=Priority(priority_key=body.priority, fairness_key=spec.tenant),
        # The worker in this process, if there is one, gets the first task with the answer to the start. Not for jobs:
        # accepting one must not wait behind working on the others.
        request_eager_start=not is_job,
    )
    return handle


def _task_queue(gateway: Gateway, spec: StartSpec) -> str:
    """Long work and streams have slots of their own: neither holds up what somebody waits for."""
    if spec.is_background:
        return batch_task_queue(gateway.task_queue)
    return stream_task_queue(gateway.task_queue) if spec.is_streamed else gateway.task_queue


def _build_input(
    spec: StartSpec,
    agent: str,
    run_id: str,
    webhook: Webhook | None,
    *,
    target: WorkflowTarget | None,
    publish_interaction: bool,
) -> RunInput:
    request = AgentRequest(
        run_id=run_id,
        task=spec.task,
        query=spec.query,
        context=spec.context,
        data=spec.data,
        params=spec.body.params,
        metadata=spec.body.metadata,
    )
    run = RunInput(
        agent=agent,
        request=request,
        timeout=spec.body.timeout,
        request_context=RequestContext(request_id=request_id(), traceparent=traceparent()),
        target=target,
        webhook=webhook,
        publish_interaction=publish_interaction,
    )
    if spec.pattern is Pattern.QUEUE:
        return JobInput(**dict(run), fan_out=spec.fan_out)
    if spec.document is not None:
        return AnalysisInput(**dict(run), document=spec.document)
    if spec.routing is not None:
        return HybridInput(**dict(run), routing=spec.routing)
    return run


def _build_summary(spec: StartSpec, agent: str) -> str:
    """The line that stands for the run in the Temporal UI."""
    query = " ".join((spec.query or "").split())
    if len(query) > _SUMMARY_LENGTH:
        query = query[: _SUMMARY_LENGTH - 1] + "…"
    return f"{agent} · {spec.task}" + (f" · {query}" if query else "")


async def _find_replayed_run(gateway: Gateway, spec: StartSpec, run_id: str) -> WorkflowHandle[Any, RunResult]:
    handle: WorkflowHandle[Any, RunResult] = gateway.client.get_workflow_handle(
        build_workflow_id(spec.tenant, run_id), result_type=RunResult
    )
    memo = await (await handle.describe()).memo()
    if memo.get("fingerprint") != fingerprint(spec.body):
        raise ProblemError(
            ProblemType.KEY_REUSED,
            "This Idempotency-Key came with another body before. Use a new key for a new request.",
            run_id=run_id,
        )
    return handle
