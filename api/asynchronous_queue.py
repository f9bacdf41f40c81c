"""Pattern 2, asynchronous queue: `POST /jobs`, `GET /jobs/{id}`, `GET /jobs/{id}/results`."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from sevenfold.adapters.temporal.durations import TaskKind
from sevenfold.adapters.temporal.run_starts import RunQueue
from sevenfold.api.dependencies import API_PREFIX, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.dependencies import AgentsDep, JobEstimatorDep, JobReaderDep, RunStarterDep
from sevenfold.api.runs.estimates import describe_seconds
from sevenfold.api.runs.job_views import ItemLine, JobState
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.jobs import InvalidJobError, JobInput, JobRequest, split_job
from sevenfold.contracts.runs.run import TOTAL_MEMO, Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["asynchronous queue"], route_class=StrictJsonRoute)

_NDJSON = "application/x-ndjson"


class JobAccepted(Payload):
    """The job is in Temporal: it survives the restart of every process."""

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


JobId = Annotated[str, Path(description="The `jobId` of the start's response.")]


@router.post("/jobs", operation_id="createJob", summary="Queue a job", status_code=202, responses=PROBLEMS)
async def start_job(
    body: JobRequest,
    starter: RunStarterDep,
    agents: AgentsDep,
    estimator: JobEstimatorDep,
    tenant: TenantDep,
    key: IdempotencyKeyDep,
    response: Response,
) -> JobAccepted:
    """Answers at once. A list in `data` under `documentIds`, `documents`, `items` or the key in `fanOut` is processed
    item by item, unless the agent takes whole batches. Failed items do not fail the job.
    """
    run = starter.prepare(Pattern.QUEUE, tenant, body, task=body.task, key=key)
    try:
        data, fan_out = split_job(body, takes_batches=agents.configs[run.agent].takes_batches(body.task))
    except InvalidJobError as error:
        raise invalid_field(error.pointer, str(error)) from None
    job = JobInput(**dict(await starter.build_input(run, data=data)), fan_out=fan_out)
    expected = await estimator.estimate_seconds(TaskKind(tenant, run.agent, body.task), job.items, body.concurrency)
    started = await starter.start(run, job, queue=RunQueue.BATCH, fails_fast=False, memo=job.memo, items=job.items)
    response.headers["Location"] = f"{API_PREFIX}/jobs/{started.run_id}"
    if started.replayed:
        response.headers.update(REPLAYED)
    return JobAccepted(job_id=started.run_id, status=RunStatus.QUEUED, estimated_time=describe_seconds(expected))


@router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    summary="Read a job",
    response_model=JobState,
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def read_job(job_id: JobId, reader: JobReaderDep, tenant: TenantDep) -> JobState:
    """Returns its status, how many items have ended, and its result once it has ended."""
    return await reader.load(await reader.find(tenant, job_id))


@router.get(
    "/jobs/{job_id}/results",
    operation_id="listJobResults",
    summary="Read a job's item results",
    response_class=Response,
    responses={200: {"model": ItemLine, "content": {_NDJSON: {}}, "description": "One line per item."}, **PROBLEMS},
)
async def read_results(
    job_id: JobId,
    reader: JobReaderDep,
    tenant: TenantDep,
    cursor: Annotated[int, Query(ge=0, le=10_000_000, description="The index of the first item.")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> Response:
    """Returns NDJSON in index order. While the job runs, the lines end before the first item without a result. Once
    it has ended or is paused, such items have a line with the status `cancelled` or `queued`. Continue with the
    response's `X-Next-Cursor`, which is missing on the last page.
    """
    description = await reader.find(tenant, job_id)
    total = (await description.memo()).get(TOTAL_MEMO)
    if total is None:
        raise ProblemError(
            ProblemType.NOT_FOUND,
            f"This job has no items: the agent processed its data as a whole. Read the result at {API_PREFIX}/jobs/"
            f"{job_id}.",
        )
    items = await reader.load_lines(description, range(cursor, min(total, cursor + limit)))
    body = "".join(item.model_dump_json(by_alias=True, exclude_none=True) + "\n" for item in items)
    next_index = cursor + len(items)
    headers = {"X-Next-Cursor": str(next_index)} if next_index < total else {}
    return Response(body, 200, headers, _NDJSON)
