"""Pattern 7, hybrid: `POST /hybrid`."""

import time

from fastapi import APIRouter, Response

from sevenfold.adapters.temporal.durations import TaskKind
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.prefer import WaitPreferenceDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.await_result import await_run, suggest_retry_after
from sevenfold.api.runs.start import StartedRun, StartSpec, resolve_agent, start_run
from sevenfold.api.runs.views import RunLinks, run_links
from sevenfold.contracts.answers import Answer
from sevenfold.contracts.hybrid import (
    MIN_RUNS,
    ROUTING_MEMO,
    Estimate,
    EstimateBasis,
    HybridRequest,
    Route,
    Routing,
    choose_route,
)
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs import Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["hybrid"], route_class=StrictJsonRoute)

# What is believed to be long is waited for no longer than this: the belief may be wrong.
_LONG_RUN_WAIT_SECONDS = 1.0


class HybridAnswer(Answer):
    """The answer, in time."""

    hybrid_id: str
    routing: Routing
    metadata: JsonObject | None = None


class HybridAccepted(Payload):
    """The run goes on: poll for it, follow it, or stop it; a webhook is told by itself."""

    hybrid_id: str
    status: RunStatus
    routing: Routing
    links: RunLinks


@router.post(
    "/hybrid",
    operation_id="createHybridRun",
    summary="Ask, and have it answered the way that fits",
    response_model=HybridAnswer,
    responses={
        202: {"model": HybridAccepted, "description": "It takes longer; the same run goes on."},
        **PROBLEMS,
    },
)
async def hybrid(
    body: HybridRequest,
    gateway: GatewayDep,
    tenant: TenantDep,
    key: IdempotencyKeyDep,
    wait_preference: WaitPreferenceDep,
) -> Response:
    """Short work is answered with 200, long work with 202 and links to poll, follow and stop it. What is short is
    told by `durationEstimate`, or by what was measured of this agent and task; a wrong guess is repaired, and
    nothing is started anew. `Prefer: wait=N` says how long you would wait.
    """
    started_at = time.monotonic()
    agent = resolve_agent(gateway, body.agent)
    task = body.task or "query"
    routing = await _choose_routing(gateway, TaskKind(tenant, agent, task), body)
    start = StartSpec(
        pattern=Pattern.HYBRID,
        tenant=tenant,
        body=body,
        task=task,
        key=key,
        query=body.query,
        context=body.context,
        data=body.data,
        routing=routing,
    )
    started = await start_run(gateway, start)
    if started.replayed:
        routing = await _load_original_routing(started)
    headers = wait_preference.headers() | (REPLAYED if started.replayed else {})
    wait_seconds = wait_preference.seconds if wait_preference.applied else _wait_seconds(gateway, agent, routing)
    result = await await_run(started, wait_seconds, headers)
    if result is None:
        return _accepted_response(gateway, tenant, started, routing, time.monotonic() - started_at, headers)
    answer = HybridAnswer(
        **dict(Answer.from_result(result)), hybrid_id=started.run_id, routing=routing, metadata=body.metadata or None
    )
    return Response(answer.model_dump_json(by_alias=True, exclude_none=True), 200, headers, "application/json")


async def _choose_routing(gateway: Gateway, kind: TaskKind, body: HybridRequest) -> Routing:
    threshold = gateway.agents[kind.agent].hybrid_threshold
    return choose_route(await _build_estimate(gateway, kind, body.duration_estimate), threshold, stream=body.stream)


async def _build_estimate(gateway: Gateway, kind: TaskKind, duration_estimate: float | None) -> Estimate:
    if duration_estimate is not None:
        return Estimate(basis=EstimateBasis.CALLER, seconds=duration_estimate)
    stats = await gateway.durations.get_stats(kind)
    if stats.run_count >= MIN_RUNS:
        return Estimate(
            basis=EstimateBasis.MEASURED, p50=stats.run_seconds, p95=stats.p95_seconds, runs=stats.run_count
        )
    configured = gateway.durations.estimates.get(kind.agent)
    if configured is not None:
        return Estimate(basis=EstimateBasis.CONFIGURED, seconds=configured, runs=stats.run_count)
    return Estimate(basis=EstimateBasis.UNKNOWN, runs=stats.run_count)


async def _load_original_routing(started: StartedRun) -> Routing:
    """What was chosen for the request that began the run."""
    routing: Routing = await (await started.handle.describe()).memo_value(ROUTING_MEMO, type_hint=Routing)
    return routing


def _wait_seconds(gateway: Gateway, agent: str, routing: Routing) -> float:
    if routing.chosen is Route.SYNCHRONOUS:
        return gateway.agents[agent].hybrid_threshold
    return _LONG_RUN_WAIT_SECONDS if routing.chosen is Route.QUEUE else 0.0


def _accepted_response(
    gateway: Gateway,
    tenant: str,
    started: StartedRun,
    routing: Routing,
    waited_seconds: float,
    headers: dict[str, str],
) -> Response:
    links = run_links(gateway, tenant, started.run_id)
    accepted = HybridAccepted(hybrid_id=started.run_id, status=RunStatus.PROCESSING, routing=routing, links=links)
    headers = {**headers, "Location": links.self, "Retry-After": suggest_retry_after(waited_seconds)}
    return Response(accepted.model_dump_json(by_alias=True, exclude_none=True), 202, headers, "application/json")
