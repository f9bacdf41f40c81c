"""Pattern 7, hybrid: `POST /hybrid`."""

import time

from fastapi import APIRouter, Response
from pydantic import Field

from sevenfold.adapters.temporal.durations import TaskKind
from sevenfold.adapters.temporal.run_starts import QUEUE_OF_ROUTE, NewRun
from sevenfold.api.dependencies import API_PREFIX, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.prefer import WaitPreferenceDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.approval_desk import InputRequest
from sevenfold.api.runs.await_result import await_run, suggest_retry_after
from sevenfold.api.runs.dependencies import AgentsDep, DurationsDep, RunReaderDep, RunStarterDep
from sevenfold.api.runs.start import RunStarter, StartedRun
from sevenfold.api.runs.views import RunLinks
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs.hybrid import (
    ROUTING_MEMO,
    HybridInput,
    HybridRequest,
    HybridRouting,
    Route,
    choose_route,
)
from sevenfold.contracts.runs.outcomes import RunAnswer
from sevenfold.contracts.runs.run import Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["hybrid"], route_class=StrictJsonRoute)

# How long the API waits for work that is estimated to be long: the estimate may be wrong.
_LONG_RUN_WAIT_SECONDS = 1.0


class HybridAnswer(RunAnswer):
    """The answer, within the wait."""

    hybrid_id: str
    routing: HybridRouting
    metadata: JsonObject | None = None


class HybridAccepted(Payload):
    """The run continues: poll it, stream it or cancel it by the links. Its webhook is delivered when it ends."""

    hybrid_id: str
    status: RunStatus
    routing: HybridRouting
    links: RunLinks
    requests: list[InputRequest] | None = Field(default=None, description="What its agent asks people.")


@router.post(
    "/hybrid",
    operation_id="createHybridRun",
    summary="Send a query or task; the gateway chooses how to answer",
    response_model=HybridAnswer,
    responses={
        202: {"model": HybridAccepted, "description": "The wait is over; the run continues."},
        **PROBLEMS,
    },
)
async def hybrid(
    body: HybridRequest,
    starter: RunStarterDep,
    reader: RunReaderDep,
    agents: AgentsDep,
    durations: DurationsDep,
    tenant: TenantDep,
    key: IdempotencyKeyDep,
    wait_preference: WaitPreferenceDep,
) -> Response:
    """Answers short work with 200, and long work with 202 and links to poll, stream and cancel it. The estimate is
    `durationEstimate`, else the measured durations of this agent and task. If the estimate is wrong, the same run
    continues. `Prefer: wait=N` sets how long you wait.
    """
    started_at = time.monotonic()
    task = body.task or "query"
    run = starter.prepare(Pattern.HYBRID, tenant, body, task=task, key=key)
    threshold_seconds = agents.configs[run.agent].hybrid_threshold
    estimate = await durations.estimate(TaskKind(tenant, run.agent, task), body.duration_estimate)
    routing = choose_route(estimate, threshold_seconds, stream=body.stream)
    started = await _start(starter, run, body, routing)
    if started.replayed:
        routing = await _load_original_routing(started)
    headers = wait_preference.headers() | (REPLAYED if started.replayed else {})
    wait_seconds = wait_preference.seconds if wait_preference.applied else _wait_seconds(routing, threshold_seconds)
    result = await await_run(started, wait_seconds, headers)
    if result is None:
        status, requests = await reader.read_requests(tenant, started.run_id)
        links = reader.links(tenant, started.run_id)
        accepted = HybridAccepted(
            hybrid_id=started.run_id, status=status, routing=routing, links=links, requests=requests
        )
        return _accepted_response(accepted, time.monotonic() - started_at, headers)
    answer = HybridAnswer(
        **dict(RunAnswer.from_result(result)),
        hybrid_id=started.run_id,
        routing=routing,
        metadata=body.metadata or None,
    )
    return Response(answer.model_dump_json(by_alias=True, exclude_none=True), 200, headers, "application/json")


async def _start(starter: RunStarter, run: NewRun, body: HybridRequest, routing: HybridRouting) -> StartedRun:
    common = await starter.build_input(run, query=body.query, context=body.context, data=body.data)
    return await starter.start(
        run,
        HybridInput(**dict(common), routing=routing),
        queue=QUEUE_OF_ROUTE[routing.chosen],
        fails_fast=True,
        memo={ROUTING_MEMO: routing},
        details=f"Chosen: **{routing.chosen}**. {routing.reason}",
    )


async def _load_original_routing(started: StartedRun) -> HybridRouting:
    """Returns the routing of the request that started the run."""
    routing: HybridRouting = await (await started.handle.describe()).memo_value(ROUTING_MEMO, type_hint=HybridRouting)
    return routing


def _wait_seconds(routing: HybridRouting, threshold_seconds: float) -> float:
    if routing.chosen is Route.SYNCHRONOUS:
        return threshold_seconds
    return _LONG_RUN_WAIT_SECONDS if routing.chosen is Route.QUEUE else 0.0


def _accepted_response(accepted: HybridAccepted, waited_seconds: float, headers: dict[str, str]) -> Response:
    headers = {**headers, "Location": accepted.links.self, "Retry-After": suggest_retry_after(waited_seconds)}
    return Response(accepted.model_dump_json(by_alias=True, exclude_none=True), 202, headers, "application/json")
