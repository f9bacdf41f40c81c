"""Pattern 1, synchronous request: `POST /query`."""

import time
from typing import Any

from fastapi import APIRouter, Response

from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.prefer import WaitPreference, WaitPreferenceDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.await_result import await_run, suggest_retry_after
from sevenfold.api.runs.start import StartedRun, StartSpec, start_run
from sevenfold.api.runs.views import RunLinks, run_links
from sevenfold.contracts.answers import Answer
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.requests import QueryRequest
from sevenfold.contracts.runs import Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["synchronous request"], route_class=StrictJsonRoute)

_ANSWER_EXAMPLE: dict[str, Any] = {
    "response": "Customer shows signs of churn risk...",
    "confidence": 0.87,
    "processingTime": "2.3s",
    "queryId": "qry_5hjq2ap3xwnmcv7tkzr4ydb6ou",
}


class QueryAnswer(Answer):
    """The answer, in time."""

    model_config = {"json_schema_extra": {"examples": [_ANSWER_EXAMPLE]}}

    query_id: str
    metadata: JsonObject | None = None


class QueryAccepted(Payload):
    """The run goes on; its result will be at `links.self`."""

    query_id: str
    status: RunStatus
    links: RunLinks


@router.post(
    "/query",
    operation_id="query",
    summary="Ask, and wait for the answer",
    response_model=QueryAnswer,
    responses={
        202: {"model": QueryAccepted, "description": "It takes longer; the same run goes on."},
        **PROBLEMS,
    },
)
async def query(
    body: QueryRequest,
    gateway: GatewayDep,
    tenant: TenantDep,
    key: IdempotencyKeyDep,
    wait_preference: WaitPreferenceDep,
) -> Response:
    """Answers within 30 s, or as long as `Prefer: wait=N` says (60 s at most); after that with 202 and the
    address where the result will be. Nothing is lost or started anew by waiting, disconnecting or asking again
    with the same `Idempotency-Key`.
    """
    started_at = time.monotonic()
    start = StartSpec(
        pattern=Pattern.SYNCHRONOUS,
        tenant=tenant,
        body=body,
        task="query",
        key=key,
        query=body.query,
        context=body.context,
    )
    started = await start_run(gateway, start)
    headers = wait_preference.headers() | (REPLAYED if started.replayed else {})
    result = await await_run(started, wait_preference.seconds, headers)
    if result is None:
        return _accepted_response(gateway, tenant, started, wait_preference, time.monotonic() - started_at, headers)
    answer = QueryAnswer(**dict(Answer.from_result(result)), query_id=started.run_id, metadata=body.metadata or None)
    return _json(200, answer.model_dump_json(by_alias=True, exclude=_absent_fields(answer)), headers)


def _absent_fields(answer: QueryAnswer) -> set[str]:
    """The article's fields always stand there; others only when they say something."""
    return {name for name in ("data", "usage", "metadata") if getattr(answer, name) is None}


def _accepted_response(
    gateway: Gateway,
    tenant: str,
    started: StartedRun,
    wait_preference: WaitPreference,
    waited_seconds: float,
    headers: dict[str, str],
) -> Response:
    links = run_links(gateway, tenant, started.run_id)
    accepted = QueryAccepted(query_id=started.run_id, status=RunStatus.PROCESSING, links=links)
    return _json(
        202,
        accepted.model_dump_json(by_alias=True),
        {**headers, "Location": links.self, "Retry-After": suggest_retry_after(waited_seconds)},
    )


def _json(status: int, body: str, headers: dict[str, str]) -> Response:
    return Response(body, status, headers, "application/json")
