"""Pattern 5, polling: `POST /tasks`, `GET /tasks/{id}`."""

import hashlib
import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from sevenfold.adapters.temporal.durations import TaskKind
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import not_found
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.poll_cache import PollCacheDep, PollView
from sevenfold.api.runs.start import StartSpec, start_run
from sevenfold.api.runs.views import Run, find_run, load_run
from sevenfold.contracts.answers import Answer
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.requests import TaskRequest
from sevenfold.contracts.runs import ID_PREFIXES, Pattern, RunError, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["polling"], route_class=StrictJsonRoute)

MAX_WAIT = 60
_MAX_RETRY_AFTER = 60

_FINAL = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


class TaskAccepted(Payload):
    """The run exists, and goes on until it has an answer or its time is over."""

    model_config = {
        "json_schema_extra": {"examples": [{"taskId": "task_5hjq2ap3xwnmcv7tkzr4ydb6ou", "status": "processing"}]}
    }

    task_id: str
    status: RunStatus


class TaskState(Payload):
    """What a client that comes back is told."""

    model_config = {
        "json_schema_extra": {
            "examples": [{"taskId": "task_5hjq2ap3xwnmcv7tkzr4ydb6ou", "status": "processing", "progress": 45}]
        }
    }

    task_id: str
    status: RunStatus
    progress: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Percent; while it is open."
    )
    note: str | None = Field(default=None, description="What the agent says it is doing.")
    result: Answer | None = None
    error: RunError | None = None


@router.post(
    "/tasks",
    operation_id="createTask",
    summary="Start a task and come back for it",
    status_code=202,
    responses=PROBLEMS,
)
async def start_task(
    body: TaskRequest, gateway: GatewayDep, tenant: TenantDep, key: IdempotencyKeyDep, response: Response
) -> TaskAccepted:
    """Answers at once. The agent is asked again after failures until the run's `timeout` is over."""
    started = await start_run(gateway, StartSpec(Pattern.POLLING, tenant, body, task=body.task, key=key))
    response.headers["Location"] = f"{API_PREFIX}/tasks/{started.run_id}"
    if started.replayed:
        response.headers.update(REPLAYED)
    return TaskAccepted(task_id=started.run_id, status=RunStatus.PROCESSING)


@router.get(
    "/tasks/{task_id}",
    operation_id="getTask",
    summary="Come back for a task",
    response_model=TaskState,
    responses={304: {"description": "It is as `If-None-Match` knows it."}, **PROBLEMS},
)
async def read_task(
    task_id: Annotated[str, Path(description="The `taskId` that the start answered.")],
    gateway: GatewayDep,
    poll_cache: PollCacheDep,
    tenant: TenantDep,
    wait: Annotated[
        float,
        Query(ge=0, le=MAX_WAIT, allow_inf_nan=False, description="Seconds to wait for a change before answering."),
    ] = 0.0,
    if_none_match: Annotated[str | None, Header(description="The `ETag` of the last answer.")] = None,
) -> Response:
    """The state now. With `wait`, the answer comes as soon as something changes: against what `If-None-Match`
    knows, else against what it is now. `Retry-After` says when it is worth coming back.
    """
    if not task_id.startswith(ID_PREFIXES[Pattern.POLLING] + "_"):
        raise not_found("This task")
    cached_run = poll_cache.get(tenant, task_id, partial(_load_view, gateway, tenant, task_id, _LastProgress()))
    view = await cached_run.current()
    known = _parse_versions(if_none_match)
    if wait and not view.is_final and (not known or _is_known(view, known)):
        view = await cached_run.wait_for_change(view.version, wait)
    headers = {"ETag": f'"{view.version}"', "Cache-Control": "private, no-cache"}
    if not view.is_final:
        headers["Retry-After"] = str(min(_MAX_RETRY_AFTER, max(1, math.ceil(view.retry_after))))
    if _is_known(view, known):
        return Response(status_code=304, headers=headers)
    return Response(view.body, 200, headers, "application/json")


@dataclass
class _LastProgress:
    """How far a task was when it was last looked at."""

    percent: int = 0


async def _load_view(gateway: Gateway, tenant: str, task_id: str, last_progress: _LastProgress) -> PollView:
    run = await load_run(gateway, tenant, await find_run(gateway, tenant, task_id))
    final = run.status in _FINAL
    if run.progress is not None:  # between its call's end and its own a run tells none
        last_progress.percent = math.floor(run.progress.percent)
    state = TaskState(
        task_id=run.id,
        status=run.status,
        progress=None if final else last_progress.percent,
        note=run.progress.note or None if run.progress else None,
        result=run.result,
        error=run.error,
    )
    body = state.model_dump_json(by_alias=True, exclude_none=True)
    return PollView(
        body=body,
        version=hashlib.sha256(body.encode()).hexdigest()[:24],
        is_final=final,
        retry_after=0.0 if final else await _estimate_retry_after(gateway, tenant, run),
    )


async def _estimate_retry_after(gateway: Gateway, tenant: str, run: Run) -> float:
    percent = run.progress.percent if run.progress else 0.0
    return await gateway.durations.remaining_seconds(TaskKind(tenant, run.agent, run.task), run.created_at, percent)


def _parse_versions(if_none_match: str | None) -> set[str]:
    """The entity tags in the header, without their quotes and weakness marks (RFC 9110, 13.1.2)."""
    tags = (tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(","))
    return {tag.strip('"') for tag in tags if tag}


def _is_known(view: PollView, known: set[str]) -> bool:
    return view.version in known or "*" in known
