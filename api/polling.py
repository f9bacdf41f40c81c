"""Pattern 5, polling: `POST /tasks`, `GET /tasks/{id}`."""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from sevenfold.adapters.temporal.durations import Durations, TaskKind
from sevenfold.adapters.temporal.run_starts import RunQueue
from sevenfold.api.dependencies import API_PREFIX, PrincipalDep, TenantDep
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import not_found
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.approval_desk import InputRequest
from sevenfold.api.runs.dependencies import DurationsDep, PollCacheDep, RunReaderDep, RunStarterDep
from sevenfold.api.runs.poll_cache import PollView
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.runs.views import Run
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.outcomes import RunAnswer
from sevenfold.contracts.runs.requests import TaskRequest
from sevenfold.contracts.runs.run import ID_PREFIXES, Pattern, RunError, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["polling"], route_class=StrictJsonRoute)

MAX_WAIT = 60
_MAX_RETRY_AFTER = 60

_FINAL = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


class TaskAccepted(Payload):
    """The run exists. It continues until it has an answer or its deadline passes."""

    model_config = {
        "json_schema_extra": {"examples": [{"taskId": "task_5hjq2ap3xwnmcv7tkzr4ydb6ou", "status": "processing"}]}
    }

    task_id: str
    status: RunStatus


class TaskState(Payload):
    """The state of a task, for a client that polls."""

    model_config = {
        "json_schema_extra": {
            "examples": [{"taskId": "task_5hjq2ap3xwnmcv7tkzr4ydb6ou", "status": "processing", "progress": 45}]
        }
    }

    task_id: str
    status: RunStatus
    progress: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Percent; only while the task is open."
    )
    note: str | None = Field(default=None, description="The agent's note on its progress.")
    result: RunAnswer | None = None
    error: RunError | None = None
    requests: list[InputRequest] | None = Field(default=None, description="What its agent asks people.")


@router.post(
    "/tasks",
    operation_id="createTask",
    summary="Start a task to poll",
    status_code=202,
    responses=PROBLEMS,
)
async def start_task(
    body: TaskRequest, starter: RunStarterDep, tenant: TenantDep, key: IdempotencyKeyDep, response: Response
) -> TaskAccepted:
    """Answers at once. Failed agent calls are retried until the run's `timeout`."""
    run = starter.prepare(Pattern.POLLING, tenant, body, task=body.task, key=key)
    started = await starter.start(run, await starter.build_input(run), queue=RunQueue.INTERACTIVE, fails_fast=False)
    response.headers["Location"] = f"{API_PREFIX}/tasks/{started.run_id}"
    if started.replayed:
        response.headers.update(REPLAYED)
    return TaskAccepted(task_id=started.run_id, status=RunStatus.PROCESSING)


@router.get(
    "/tasks/{task_id}",
    operation_id="getTask",
    summary="Poll a task",
    response_model=TaskState,
    responses={304: {"description": "The task is unchanged since the `ETag` in `If-None-Match`."}, **PROBLEMS},
)
async def read_task(
    task_id: Annotated[str, Path(description="The `taskId` that the start answered.")],
    reader: RunReaderDep,
    durations: DurationsDep,
    poll_cache: PollCacheDep,
    principal: PrincipalDep,
    wait: Annotated[
        float,
        Query(ge=0, le=MAX_WAIT, allow_inf_nan=False, description="Seconds to wait for a change before answering."),
    ] = 0.0,
    if_none_match: Annotated[str | None, Header(description="The `ETag` of the last answer.")] = None,
) -> Response:
    """Returns the state now. With `wait`, answers as soon as the state changes: from the version in `If-None-Match`,
    else from the present one. `Retry-After` is the number of seconds after which polling again is worthwhile.
    """
    if not task_id.startswith(ID_PREFIXES[Pattern.POLLING] + "_"):
        raise not_found("This task")
    tenant = principal.tenant
    cached_run = poll_cache.get(
        tenant, task_id, partial(_load_view, reader, durations, tenant, task_id, _LastProgress())
    )
    view = await cached_run.current()
    known = _parse_versions(if_none_match)
    if wait and not view.has_ended and (not known or _is_known(view, known)):
        view = await cached_run.wait_for_change(view.version, wait)
    headers = {"ETag": f'"{view.version}"', "Cache-Control": "private, no-cache"}
    if not view.has_ended:
        headers["Retry-After"] = str(min(_MAX_RETRY_AFTER, max(1, math.ceil(view.retry_after))))
    if _is_known(view, known):
        return Response(status_code=304, headers=headers)
    body = view.body if principal.may_answer else _without_links(view.body)
    return Response(body, 200, headers, "application/json")


def _without_links(body: str) -> str:
    state = json.loads(body)
    for request in state.get("requests", ()):
        request.pop("url", None)
    return json.dumps(state, ensure_ascii=False)


@dataclass
class _LastProgress:
    """The progress of a task when it was last read."""

    percent: int = 0


async def _load_view(
    reader: RunReader, durations: Durations, tenant: str, task_id: str, last_progress: _LastProgress
) -> PollView:
    run = await reader.load(await reader.find(tenant, task_id))
    final = run.status in _FINAL
    if run.progress is not None:  # a run whose agent call has ended, but not the run itself, reports none
        last_progress.percent = math.floor(run.progress.percent)
    state = TaskState(
        task_id=run.id,
        status=run.status,
        progress=None if final else last_progress.percent,
        note=run.progress.note or None if run.progress else None,
        result=run.result,
        error=run.error,
        requests=run.requests,
    )
    body = state.model_dump_json(by_alias=True, exclude_none=True)
    return PollView(
        body=body,
        version=hashlib.sha256(body.encode()).hexdigest()[:24],
        has_ended=final,
        has_completed=run.status is RunStatus.COMPLETED,
        retry_after=0.0 if final else await _estimate_retry_after(durations, tenant, run),
    )


async def _estimate_retry_after(durations: Durations, tenant: str, run: Run) -> float:
    percent = run.progress.percent if run.progress else 0.0
    return await durations.remaining_seconds(TaskKind(tenant, run.agent, run.task), run.created_at, percent)


def _parse_versions(if_none_match: str | None) -> set[str]:
    """Returns the entity tags in the header, without quotes and weakness marks (RFC 9110, 13.1.2)."""
    tags = (tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(","))
    return {tag.strip('"') for tag in tags if tag}


def _is_known(view: PollView, known: set[str]) -> bool:
    return view.version in known or "*" in known
