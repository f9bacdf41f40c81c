"""Runs of any pattern: list, read, cancel."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.api.dependencies import API_PREFIX, ListedTenantDep, PrincipalDep
from sevenfold.api.http.listing import PagerDep, tenant_condition
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam, to_query_time
from sevenfold.api.runs.dependencies import RunReaderDep, RunRetrierDep
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.runs.views import Run, RunSummary
from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.agents.questions import INPUT_ATTRIBUTE
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.run import WORKFLOW_TYPES, Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["runs"], route_class=StrictJsonRoute)

_EXECUTION_STATUSES = {
    RunStatus.QUEUED: ("Running",),
    RunStatus.PROCESSING: ("Running",),
    RunStatus.INPUT_REQUIRED: ("Running",),
    RunStatus.COMPLETED: ("Completed",),
    RunStatus.FAILED: ("Failed", "TimedOut", "Terminated"),
    RunStatus.CANCELLED: ("Canceled",),
}

RunId = Annotated[str, Path(description="A run's id, such as `qry_…`.")]


class RunPage(Payload):
    """A page of runs: open ones first, then the latest ended. `nextCursor` is null on the last page."""

    items: list[RunSummary]
    next_cursor: str | None


@router.get("/runs", operation_id="listRuns", summary="List runs", responses=PROBLEMS)
async def list_runs(
    reader: RunReaderDep,
    pager: PagerDep,
    tenant: ListedTenantDep,
    pattern: Pattern | None = None,
    status: RunStatus | None = None,
    agent: AgentName | None = None,
    task: Annotated[str | None, Query(pattern=r"^[\w.:-]{1,100}$")] = None,
    created_after: Annotated[TimeParam | None, Query(alias="createdAfter")] = None,
    created_before: Annotated[TimeParam | None, Query(alias="createdBefore")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
) -> RunPage:
    """Lists what Temporal's visibility knows, which lags by a moment. Runs that have not completed are looked up
    again, because visibility does not know `queued`, and lists a retried run twice. A page may hold fewer than
    `limit` items and still have a next one.
    """
    conditions = [_is_in("WorkflowType", [WORKFLOW_TYPES[one] for one in ([pattern] if pattern else WORKFLOW_TYPES)])]
    conditions += tenant_condition(tenant)
    if status:
        conditions.append(_is_in("ExecutionStatus", _EXECUTION_STATUSES[status]))
    if status is RunStatus.INPUT_REQUIRED:
        conditions.append(f"{INPUT_ATTRIBUTE} = true")
    if agent:
        conditions.append(f"Agent = '{agent}'")
    if task:
        conditions.append(f"Task = '{task}'")
    if created_after:
        conditions.append(f"StartTime >= '{to_query_time(created_after)}'")
    if created_before:
        conditions.append(f"StartTime < '{to_query_time(created_before)}'")
    listed, next_cursor = await pager.list_page(" AND ".join(conditions), limit, cursor)
    items = await gather_bounded(reader.summarize, listed)
    return RunPage(
        items=[item for item in items if item is not None and status in (None, item.status)],
        next_cursor=next_cursor,
    )


def _is_in(attribute: str, values: Sequence[str]) -> str:
    return f"{attribute} IN (" + ", ".join(f"'{value}'" for value in values) + ")"


@router.get("/runs/{run_id}", operation_id="getRun", summary="Read a run", responses=PROBLEMS)
async def read_run(run_id: RunId, reader: RunReaderDep, principal: PrincipalDep) -> Run:
    """Returns the run as it is now, with its progress, result or error."""
    run = await reader.load(await reader.find(principal.tenant, run_id), with_steps=True)
    return run.shown_to(principal)


@router.post(
    "/runs/{run_id}/cancel",
    operation_id="cancelRun",
    summary="Cancel a run",
    status_code=202,
    responses={200: {"model": Run, "description": "The run had ended already."}, **PROBLEMS},
)
async def cancel_run(run_id: RunId, reader: RunReaderDep, principal: PrincipalDep, response: Response) -> Run:
    """Requests cancellation, which reaches the agent within a second. A run that has ended stays as it is."""
    run = await request_cancellation(reader, principal, run_id)
    if run.closed_at is not None:
        response.status_code = 200
    return run


@router.post(
    "/runs/{run_id}/retry",
    operation_id="retryRun",
    summary="Retry a run",
    status_code=202,
    responses={200: {"model": Run, "description": "The run is open already."}, **PROBLEMS},
)
async def retry_run(run_id: RunId, retrier: RunRetrierDep, principal: PrincipalDep, response: Response) -> Run:
    """Starts a run again that has failed or was cancelled, under its own id and with its whole timeout. Its webhook
    is delivered once more, when it ends again.
    """
    run, is_started = await retrier.retry(principal.tenant, run_id)
    if not is_started:
        response.status_code = 200
    return run.shown_to(principal)


async def request_cancellation(reader: RunReader, principal: Principal, run_id: str) -> Run:
    """Requests the cancellation of an open run; returns the run as it is then, as the principal may see it. Raises
    404.
    """
    tenant = principal.tenant
    description = await reader.find(tenant, run_id)
    if description.close_time is None:
        try:
            await reader.client.get_workflow_handle(build_workflow_id(tenant, run_id)).cancel()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # it has just ended
                raise
        description = await reader.find(tenant, run_id)
    run = await reader.load(description)
    return run.shown_to(principal)
