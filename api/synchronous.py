"""Pattern 1, synchronous request: `POST /query`."""

import time
from typing import Any

from fastapi import APIRouter, Response

from api.gateway import API_PREFIX, Gateway, GatewayDep, TenantDep
from api.idempotency import REPLAYED, IdempotencyKeyDep
from api.preferences import Patience, PatienceDep
from api.problem_docs import PROBLEMS
from api.runs_view import RunLinks, links
from api.starting import Start, Started, start_run
from api.strict_json import StrictJsonRoute
from api.waiting import retry_after, waited_for
from contracts.answers import Answer
from contracts.payload import JsonObject, Payload
from contracts.requests import QueryRequest
from contracts.runs import Pattern, RunStatus

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


class QueryPromise(Payload):
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
        202: {"model": QueryPromise, "description": "It takes longer; the same run goes on."},
        **PROBLEMS,
    },
)
async def query(
    body: QueryRequest,
    gateway: GatewayDep,
    tenant: TenantDep,
    key: IdempotencyKeyDep,
    patience: PatienceDep,
) -> Response:
    """Answers within 30 s, or as long as `Prefer: wait=N` says (60 s at most); after that with 202 and the
    address where the result will be. Nothing is lost or started anew by waiting, disconnecting or asking again
    with the same `Idempotency-Key`.
    """
    begun = time.monotonic()
    start = Start(
        pattern=Pattern.SYNCHRONOUS,
        tenant=tenant,
        body=body,
        task="query",
        key=key,
        query=body.query,
        context=body.context,
    )
    started = await start_run(gateway, start)
    headers = patience.headers() | (REPLAYED if started.replayed else {})
    result = await waited_for(started, patience.seconds, headers)
    if result is None:
        return _promise(gateway, tenant, started, patience, time.monotonic() - begun, headers)
    answer = QueryAnswer(**dict(Answer.of(result)), query_id=started.run_id, metadata=body.metadata or None)
    return _json(200, answer.model_dump_json(by_alias=True, exclude=_absent(answer)), headers)


def _absent(answer: QueryAnswer) -> set[str]:
    """The article's fields always stand there; others only when they say something."""
    return {name for name in ("data", "usage", "metadata") if getattr(answer, name) is None}


def _promise(
    gateway: Gateway,
    tenant: str,
    started: Started,
    patience: Patience,
    waited: float,
    headers: dict[str, str],
) -> Response:
    to = links(gateway, tenant, started.run_id)
    promise = QueryPromise(query_id=started.run_id, status=RunStatus.PROCESSING, links=to)
    return _json(
        202,
        promise.model_dump_json(by_alias=True),
        {**headers, "Location": to.self, "Retry-After": retry_after(waited)},
    )


def _json(status: int, body: str, headers: dict[str, str]) -> Response:
    return Response(body, status, headers, "application/json")
