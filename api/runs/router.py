"""Any pattern's runs: list, read, cancel."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from temporalio.client import WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.listing import find_execution, list_page
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam, to_query_time
from sevenfold.api.runs.views import Run, RunSummary, find_run, load_run, summarize_run
from sevenfold.contracts.agent import AgentName
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs import WORKFLOW_TYPES, Pattern, RunStatus

router = APIRouter(prefix=API_PREFIX, tags=["runs"], route_class=StrictJsonRoute)

_EXECUTION_STATUSES = {
    RunStatus.QUEUED: ("Running",),
    RunStatus.PROCESSING: ("Running",),
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
    gateway: GatewayDep,
    tenant: TenantDep,
    pattern: Pattern | None = None,
    status: RunStatus | None = None,
    agent: AgentName | None = None,
    task: Annotated[str | None, Query(pattern=r"^[\w.:-]{1,100}$")] = None,
    created_after: Annotated[TimeParam | None, Query(alias="createdAfter")] = None,
    created_before: Annotated[TimeParam | None, Query(alias="createdBefore")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
) -> RunPage:
    """What Temporal's visibility knows, a moment late; whether an open run is still `queued` is looked up. A
    page may hold fewer than `limit` items and still have a next one.
    """
    types = [pattern] if pattern else list(WORKFLOW_TYPES)
    conditions = [
        "WorkflowType IN (" + ", ".join(f"'{WORKFLOW_TYPES[one]}'" for one in types) + ")",
        f"Tenant = '{tenant}'",
    ]
    if status:
        names = ", ".join(f"'{name}'" for name in _EXECUTION_STATUSES[status])
        conditions.append(f"ExecutionStatus IN ({names})")
    if agent:
        conditions.append(f"Agent = '{agent}'")
    if task:
        conditions.append(f"Task = '{task}'")
    if created_after:
        conditions.append(f"StartTime >= '{to_query_time(created_after)}'")
    if created_before:
        conditions.append(f"StartTime < '{to_query_time(created_before)}'")
    query = " AND ".join(conditions)
    listed, next_cursor = await list_page(gateway, query, limit, cursor)
    items = await gather_bounded(partial(_summary, gateway, tenant), listed)
    return RunPage(
        items=[item for item in items if status in (None, item.status)],
        next_cursor=next_cursor,
    )


async def _summary(gateway: Gateway, tenant: str, execution: WorkflowExecution) -> RunSummary:
    """Visibility lags and does not know `queued`: what it takes for open is looked at once more."""
    if execution.close_time is None:
        execution = await find_execution(gateway, execution.id) or execution
    return summarize_run(gateway, tenant, execution)


@router.get("/runs/{run_id}", operation_id="getRun", summary="Read a run", responses=PROBLEMS)
async def read_run(run_id: RunId, gateway: GatewayDep, tenant: TenantDep) -> Run:
    """The run as it is now, with its progress, result or error."""
    return await load_run(gateway, tenant, await find_run(gateway, tenant, run_id))


@router.post(
    "/runs/{run_id}/cancel",
    operation_id="cancelRun",
    summary="Cancel a run",
    status_code=202,
    responses={200: {"model": Run, "description": "It had ended already."}, **PROBLEMS},
)
async def cancel_run(run_id: RunId, gateway: GatewayDep, tenant: TenantDep, response: Response) -> Run:
    """Asks the run to stop; the agent is told within a second. A run that has ended stays as it is."""
    description = await find_run(gateway, tenant, run_id)
    if description.close_time is None:
        try:
            await gateway.client.get_workflow_handle(build_workflow_id(tenant, run_id)).cancel()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # it ended just now
                raise
        description = await find_run(gateway, tenant, run_id)
    if description.close_time is not None:
        response.status_code = 200
    return await load_run(gateway, tenant, description)
