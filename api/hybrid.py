"""Pattern 7, hybrid: `POST /hybrid`."""

import time

from fastapi import APIRouter, Response

from api.durations import Work
from api.gateway import API_PREFIX, Gateway, GatewayDep, TenantDep
from api.idempotency import REPLAYED, IdempotencyKeyDep
from api.preferences import PatienceDep
from api.problem_docs import PROBLEMS
from api.runs_view import RunLinks, links
from api.starting import Start, Started, known_agent, start_run
from api.strict_json import StrictJsonRoute
from api.waiting import retry_after, waited_for
from contracts.answers import Answer
from contracts.hybrid import (
    ENOUGH_RUNS,
    ROUTING,
    Basis,
    Estimate,
    HybridRequest,
    Route,
    Routing,
    route,
)
from contracts.payload import JsonObject, Payload
from contracts.runs import Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["hybrid"], route_class=StrictJsonRoute)

# What is believed to be long is waited for no longer than this: the belief may be wrong.
_WAIT_FOR_LONG = 1.0


class HybridAnswer(Answer):
    """The answer, in time."""

    hybrid_id: str
    routing: Routing
    metadata: JsonObject | None = None


class HybridPromise(Payload):
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
        202: {"model": HybridPromise, "description": "It takes longer; the same run goes on."},
        **PROBLEMS,
    },
)
async def hybrid(
    body: HybridRequest, gateway: GatewayDep, tenant: TenantDep, key: IdempotencyKeyDep, patience: PatienceDep
) -> Response:
    """Short work is answered with 200, long work with 202 and links to poll, follow and stop it. What is short is
    told by `durationEstimate`, or by what was measured of this agent and task; a wrong guess is repaired, and
    nothing is started anew. `Prefer: wait=N` says how long you would wait.
    """
    begun = time.monotonic()
    agent = known_agent(gateway, body.agent)
    task = body.task or "query"
    routing = await _routing(gateway, Work(tenant, agent, task), body)
    start = Start(
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
        routing = await _first_routing(started)
    headers = patience.headers() | (REPLAYED if started.replayed else {})
    wait = patience.seconds if patience.applied else _wait(gateway, agent, routing)
    result = await waited_for(started, wait, headers)
    if result is None:
        return _promise(gateway, tenant, started, routing, time.monotonic() - begun, headers)
    answer = HybridAnswer(
        **dict(Answer.of(result)), hybrid_id=started.run_id, routing=routing, metadata=body.metadata or None
    )
    return Response(answer.model_dump_json(by_alias=True, exclude_none=True), 200, headers, "application/json")


async def _routing(gateway: Gateway, work: Work, body: HybridRequest) -> Routing:
    threshold = gateway.agents[work.agent].hybrid_threshold
    return route(await _estimate(gateway, work, body.duration_estimate), threshold, stream=body.stream)


async def _estimate(gateway: Gateway, work: Work, told: float | None) -> Estimate:
    if told is not None:
        return Estimate(basis=Basis.CALLER, seconds=told)
    measured = await gateway.durations.of(work)
    if measured.runs >= ENOUGH_RUNS:
        return Estimate(basis=Basis.MEASURED, p50=measured.run, p95=measured.p95, runs=measured.runs)
    configured = gateway.durations.estimates.get(work.agent)
    if configured is not None:
        return Estimate(basis=Basis.CONFIGURED, seconds=configured, runs=measured.runs)
    return Estimate(basis=Basis.UNKNOWN, runs=measured.runs)


async def _first_routing(started: Started) -> Routing:
    """What was chosen for the request that began the run."""
    routing: Routing = await (await started.handle.describe()).memo_value(ROUTING, type_hint=Routing)
    return routing


def _wait(gateway: Gateway, agent: str, routing: Routing) -> float:
    if routing.chosen is Route.SYNCHRONOUS:
        return gateway.agents[agent].hybrid_threshold
    return _WAIT_FOR_LONG if routing.chosen is Route.QUEUE else 0.0


def _promise(
    gateway: Gateway, tenant: str, started: Started, routing: Routing, waited: float, headers: dict[str, str]
) -> Response:
    to = links(gateway, tenant, started.run_id)
    promise = HybridPromise(hybrid_id=started.run_id, status=RunStatus.PROCESSING, routing=routing, links=to)
    headers = {**headers, "Location": to.self, "Retry-After": retry_after(waited)}
    return Response(promise.model_dump_json(by_alias=True, exclude_none=True), 202, headers, "application/json")
