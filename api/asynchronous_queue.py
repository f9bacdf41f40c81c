"""Pattern 2, asynchronous queue: `POST /jobs`, `GET /jobs/{id}`, `GET /jobs/{id}/results`."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field, JsonValue
from temporalio.client import WorkflowExecutionDescription

from sevenfold.adapters.temporal.durations import TaskKind
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import escape_pointer, invalid_field, not_found
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.estimates import describe_seconds, estimate_job_seconds
from sevenfold.api.runs.job_items import count_items, is_paused, load_results
from sevenfold.api.runs.start import StartSpec, resolve_agent, start_run
from sevenfold.api.runs.views import Run, find_run, load_run
from sevenfold.contracts.jobs import FAN_OUT_KEYS, MAX_ITEMS, FanOut, ItemCounts, ItemResult, JobRequest
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs import ID_PREFIXES, Pattern, RunError, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["asynchronous queue"], route_class=StrictJsonRoute)

# So many results stand in the job's own answer; more are paged.
_INLINE_ITEMS = 100

_NDJSON = "application/x-ndjson"


class JobAccepted(Payload):
    """The job is in Temporal and survives anything."""

    model_config = {
        "json_schema_extra": {
            "examples": [
                {"jobId": "job_5hjq2ap3xwnmcv7tkzr4ydb6ou", "status": "queued", "estimatedTime": "5-10 minutes"}
            ]
        }
    }

    job_id: str
    status: RunStatus
    estimated_time: str


class JobProgress(Payload):
    """Items that have ended, of all."""

    completed: int
    failed: int
    total: int
    percent: Annotated[int, Field(ge=0, le=100)]


class JobState(Payload):
    """A job as it is now."""

    job_id: str
    status: RunStatus
    progress: JobProgress
    result: JsonObject | None = None
    error: RunError | None = None


JobId = Annotated[str, Path(description="The `jobId` that the start answered.")]


@router.post("/jobs", operation_id="createJob", summary="Queue a job", status_code=202, responses=PROBLEMS)
async def start_job(
    body: JobRequest, gateway: GatewayDep, tenant: TenantDep, key: IdempotencyKeyDep, response: Response
) -> JobAccepted:
    """Answers at once. A list in `data` under `documentIds`, `documents`, `items` or what `fanOut` names is worked
    on item by item, unless the agent takes it whole; one bad item never sinks the job.
    """
    agent = resolve_agent(gateway, body.agent)
    fan_out = _build_fan_out(body, takes_batches=gateway.agents[agent].takes_batches(body.task))
    data = {name: value for name, value in body.data.items() if fan_out is None or name != fan_out.key}
    start = StartSpec(Pattern.QUEUE, tenant, body, task=body.task, key=key, data=data, fan_out=fan_out)
    items = len(fan_out.items) if fan_out else 1
    expected = await estimate_job_seconds(gateway, TaskKind(tenant, agent, body.task), items, body.concurrency)
    started = await start_run(gateway, start)
    response.headers["Location"] = f"{API_PREFIX}/jobs/{started.run_id}"
    if started.replayed:
        response.headers.update(REPLAYED)
    return JobAccepted(job_id=started.run_id, status=RunStatus.QUEUED, estimated_time=describe_seconds(expected))


def _build_fan_out(body: JobRequest, *, takes_batches: bool) -> FanOut | None:
    """The list to work on item by item, if there is one. Raises the problem of one that is none."""
    key = body.fan_out or next((name for name in FAN_OUT_KEYS if name in body.data), None)
    if key is None:
        return None
    if key not in body.data:
        raise invalid_field("/fanOut", f"there is no {key} in data")
    items: JsonValue = body.data[key]
    pointer = f"/data/{escape_pointer(key)}"
    if not isinstance(items, list):
        raise invalid_field(pointer, "must be a list; name another by fanOut")
    if not items:
        raise invalid_field(pointer, "must hold at least one item")
    if len(items) > MAX_ITEMS:
        raise invalid_field(pointer, f"holds {len(items):,} items, and a job takes {MAX_ITEMS:,}: start several jobs")
    if takes_batches:
        return None
    return FanOut(key=key, items=items, concurrency=min(body.concurrency, len(items)), max_failures=body.max_failures)


@router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    summary="Read a job",
    response_model=JobState,
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def read_job(job_id: JobId, gateway: GatewayDep, tenant: TenantDep) -> JobState:
    """Its status, how many items have ended, and finally its result."""
    description = await _find_job(gateway, tenant, job_id)
    run = await load_run(gateway, tenant, description)
    total = (await description.memo()).get("total")
    progress = (
        _build_whole_progress(run) if total is None else await _load_items_progress(gateway, description, run, total)
    )
    result = None
    if run.result is not None:
        result = await _load_items_result(gateway, description, run, total) if total else run.result.job_result
    return JobState(job_id=run.id, status=run.status, progress=progress, result=result, error=run.error)


async def _find_job(gateway: Gateway, tenant: str, job_id: str) -> WorkflowExecutionDescription:
    if not job_id.startswith(ID_PREFIXES[Pattern.QUEUE] + "_"):
        raise not_found("This job")
    return await find_run(gateway, tenant, job_id)


def _build_whole_progress(run: Run) -> JobProgress:
    done = run.status is RunStatus.COMPLETED
    percent = 100 if done else int(run.progress.percent) if run.progress else 0
    return JobProgress(completed=int(done), failed=int(run.status is RunStatus.FAILED), total=1, percent=percent)


async def _load_items_progress(
    gateway: Gateway, description: WorkflowExecutionDescription, run: Run, total: int
) -> JobProgress:
    totals = run.result.data if run.result else None
    if totals:
        ended = ItemCounts.model_validate(totals)
    elif description.close_time is not None:  # its own counts may lack what was done in its last moments
        ended = ItemCounts.from_results(list((await load_results(gateway, description, 0, total)).values()))
    else:
        ended = await count_items(gateway, description)
    percent = 100 * (ended.completed + ended.failed) // total
    return JobProgress(completed=ended.completed, failed=ended.failed, total=total, percent=percent)


async def _load_items_result(
    gateway: Gateway, description: WorkflowExecutionDescription, run: Run, total: int
) -> JsonObject:
    result: dict[str, Any] = {**run.result.job_result} if run.result else {}
    result["results"] = f"{API_PREFIX}/jobs/{run.id}/results"
    if total <= _INLINE_ITEMS:
        items = await _load_lines(gateway, description, range(total))
        result["items"] = [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in items]
    return result


class ItemLine(Payload):
    """One item's result as a line of NDJSON."""

    index: int
    status: RunStatus
    result: JsonObject | None = None
    error: RunError | None = None


def _to_line(item: ItemResult) -> ItemLine:
    if item.reply is None:
        return ItemLine(index=item.index, status=RunStatus.FAILED, error=item.error)
    reply = item.reply
    body: JsonObject = {"response": reply.response, "confidence": reply.confidence}
    result = reply.data if reply.data is not None else body
    return ItemLine(index=item.index, status=RunStatus.COMPLETED, result=result)


async def _load_lines(gateway: Gateway, description: WorkflowExecutionDescription, indexes: range) -> list[ItemLine]:
    """The lines of these items: of those without a result too, if none is being worked on."""
    results = await load_results(gateway, description, indexes.start, len(indexes))
    missing = RunStatus.CANCELLED if description.close_time is not None else None
    if missing is None and is_paused(description):
        missing = RunStatus.QUEUED
    lines: list[ItemLine] = []
    for index in indexes:
        if index in results:
            lines.append(_to_line(results[index]))
        elif missing is not None:
            lines.append(ItemLine(index=index, status=missing))
        else:
            break
    return lines


@router.get(
    "/jobs/{job_id}/results",
    operation_id="listJobResults",
    summary="Read a job's item results",
    response_class=Response,
    responses={200: {"model": ItemLine, "content": {_NDJSON: {}}, "description": "A line per item."}, **PROBLEMS},
)
async def read_results(
    job_id: JobId,
    gateway: GatewayDep,
    tenant: TenantDep,
    cursor: Annotated[int, Query(ge=0, le=10_000_000, description="The index to begin with.")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> Response:
    """NDJSON in index order. While the job runs: as far as the items have ended without a gap. Of one that has ended,
    or was paused, all: an item without a result has a line that says so, `cancelled` or `queued`. Go on with the
    `X-Next-Cursor` of the answer; it is missing once the last item was sent.
    """
    description = await _find_job(gateway, tenant, job_id)
    total = (await description.memo()).get("total")
    if total is None:
        raise not_found("A list of results: this job was worked on as a whole, and")
    items = await _load_lines(gateway, description, range(cursor, min(total, cursor + limit)))
    body = "".join(item.model_dump_json(by_alias=True, exclude_none=True) + "\n" for item in items)
    following = cursor + len(items)
    headers = {"X-Next-Cursor": str(following)} if following < total else {}
    return Response(body, 200, headers, _NDJSON)
