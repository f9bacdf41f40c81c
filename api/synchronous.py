"""Pattern 1, synchronous request: `POST /query`."""

import time
from typing import Any

from fastapi import APIRouter, Response

from sevenfold.adapters.temporal.run_starts import RunQueue
from sevenfold.api.dependencies import API_PREFIX, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.prefer import WaitPreferenceDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.approval_desk import InputRequest
from sevenfold.api.runs.await_result import await_run, suggest_retry_after
from sevenfold.api.runs.dependencies import RunReaderDep, RunStarterDep
from sevenfold.api.runs.views import RunLinks
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs.outcomes import RunAnswer
from sevenfold.contracts.runs.requests import QueryRequest
from sevenfold.contracts.runs.run import Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["synchronous request"], route_class=StrictJsonRoute)

_ANSWER_EXAMPLE: dict[str, Any] = {
    "response": "Customer shows signs of churn risk...",
    "confidence": 0.87,
    "processingTime": "2.3s",
    "queryId": "qry_5hjq2ap3xwnmcv7tkzr4ydb6ou",
}


class QueryAnswer(RunAnswer):
    """The answer, within the wait."""

    model_config = {"json_schema_extra": {"examples": [_ANSWER_EXAMPLE]}}

    query_id: str
    metadata: JsonObject | None = None


class QueryAccepted(Payload):
    """The run continues; its result will be at `links.self`. With `requests` it waits for people's answers."""

    query_id: str
    status: RunStatus
    links: RunLinks
    requests: list[InputRequest] | None = None


@router.post(
    "/query",
    operation_id="query",
    summary="Send a query and wait for the answer",
    response_model=QueryAnswer,
    responses={
        202: {"model": QueryAccepted, "description": "The wait is over; the run continues."},
        **PROBLEMS,
    },
)
async def query(
    body: QueryRequest,
    starter: RunStarterDep,
    reader: RunReaderDep,
    tenant: TenantDep,
    key: IdempotencyKeyDep,
    wait_preference: WaitPreferenceDep,
) -> Response:
    """Answers with 200 within 30 s, or within the N seconds of `Prefer: wait=N` (60 at most); after that with 202 and
    the address of the result. The run continues if the client disconnects. A repeated request with the same
    `Idempotency-Key` starts no second run.
    """
    started_at = time.monotonic()
    run = starter.prepare(Pattern.SYNCHRONOUS, tenant, body, task="query", key=key)
    workflow_input = await starter.build_input(run, query=body.query, context=body.context, messages=body.messages)
    started = await starter.start(run, workflow_input, queue=RunQueue.INTERACTIVE, fails_fast=True)
    headers = wait_preference.headers() | (REPLAYED if started.replayed else {})
    result = await await_run(started, wait_preference.seconds, headers)
    if result is None:
        status, requests = await reader.read_requests(tenant, started.run_id)
        links = reader.links(tenant, started.run_id)
        accepted = QueryAccepted(query_id=started.run_id, status=status, links=links, requests=requests)
        return _accepted_response(accepted, time.monotonic() - started_at, headers)
    answer = QueryAnswer(
        **dict(RunAnswer.from_result(result)), query_id=started.run_id, metadata=body.metadata or None
    )
    return _json(200, answer.model_dump_json(by_alias=True, exclude=_absent_fields(answer)), headers)


def _absent_fields(answer: QueryAnswer) -> set[str]:
    """Fields to omit because they are empty. The article's own fields are always present."""
    return {name for name in ("data", "usage", "metadata") if getattr(answer, name) is None}


def _accepted_response(accepted: QueryAccepted, waited_seconds: float, headers: dict[str, str]) -> Response:
    nothing = {"requests"} if accepted.requests is None else set()
    return _json(
        202,
        accepted.model_dump_json(by_alias=True, exclude=nothing),
        {**headers, "Location": accepted.links.self, "Retry-After": suggest_retry_after(waited_seconds)},
    )


def _json(status: int, body: str, headers: dict[str, str]) -> Response:
    return Response(body, status, headers, "application/json")
