"""Webhook deliveries: list, read, deliver again. Deliveries in the state `exhausted` are the dead letters."""

from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.run_outcomes import fetch_input
from sevenfold.adapters.temporal.search_attributes import delivery_search_attributes
from sevenfold.api.dependencies import API_PREFIX, ClientDep, ListedTenantDep, PrincipalDep, TemporalUiDep, TenantDep
from sevenfold.api.http.listing import PagerDep, filter_latest, tenant_condition
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam, UtcTime, to_query_time
from sevenfold.api.webhooks.endpoint_statistics import endpoint_condition
from sevenfold.api.webhooks.views import (
    DeliveryDetail,
    DeliverySummary,
    find_delivery,
    find_delivery_state,
    load_delivery,
    load_log,
    summarize_delivery,
)
from sevenfold.contracts import workflow_types
from sevenfold.contracts.access.principals import Scope
from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.payload import Payload, RequestBody
from sevenfold.contracts.webhooks.delivery import LOG_MEMO, SUBJECT_MEMO, DeliveryInput, DeliveryLog, DeliveryState

router = APIRouter(prefix=API_PREFIX, tags=["webhooks"], route_class=StrictJsonRoute)

_CONDITIONS = {
    DeliveryState.PENDING: "DeliveryState = 'pending' AND ExecutionStatus = 'Running'",
    DeliveryState.RETRYING: "DeliveryState = 'retrying' AND ExecutionStatus = 'Running'",
    DeliveryState.DELIVERED: "DeliveryState = 'delivered'",
    DeliveryState.EXHAUSTED: "DeliveryState = 'exhausted'",
    DeliveryState.CANCELLED: "ExecutionStatus IN ('Canceled', 'Terminated')",
}
# Maximum of redeliveries per request; the next request continues.
_MAX_REDELIVERED = 1_000
_PAGE = 100

DeliveryId = Annotated[str, Path(description="A delivery's id, such as `whk_…`.")]


class DeliveryPage(Payload):
    """A page of deliveries. `nextCursor` is null on the last page."""

    items: list[DeliverySummary]
    next_cursor: str | None


class RedeliverRequest(RequestBody):
    """Which deliveries to deliver again."""

    since: UtcTime
    state: DeliveryState = DeliveryState.EXHAUSTED


class Redelivered(Payload):
    """How many deliveries were started again. `more`: send the request again for the rest."""

    redelivered: int
    more: bool


@router.get("/webhooks/deliveries", operation_id="listDeliveries", summary="List deliveries", responses=PROBLEMS)
async def list_deliveries(
    client: ClientDep,
    ui: TemporalUiDep,
    pager: PagerDep,
    tenant: ListedTenantDep,
    state: DeliveryState | None = None,
    run: Annotated[str | None, Query(pattern=r"^[a-z0-9_]{1,40}$", description="A run's id.")] = None,
    host: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9._:-]+$", max_length=253, description="The host of the webhook's URL.")
    ] = None,
    endpoint: Annotated[
        str | None, Query(pattern=r"^[a-z0-9_]{1,40}$", description="A stored endpoint's id.")
    ] = None,
    since: TimeParam | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
) -> DeliveryPage:
    """Lists the latest first. A page may hold fewer than `limit` items and still have a next one."""
    conditions = [endpoint_condition(endpoint)] if endpoint else []
    query = " AND ".join([_query(tenant, state, run, host, since), *conditions])
    listed, next_cursor = await pager.list_page(query, limit, cursor)
    present = await _filter_by_state(client, listed, state)
    return DeliveryPage(
        items=[await summarize_delivery(ui, execution) for execution in present],
        next_cursor=next_cursor,
    )


# Before the route of one delivery, which would take `redeliver` for an id.
@router.post(
    "/webhooks/deliveries/redeliver",
    operation_id="redeliverDeliveries",
    summary="Deliver many again",
    status_code=202,
    responses=PROBLEMS,
)
async def redeliver_many(
    body: RedeliverRequest, client: ClientDep, pager: PagerDep, tenant: TenantDep
) -> Redelivered:
    """Redelivers what was started since `since` and is in `state` now; by default the dead letters (`exhausted`)."""
    query = _query(tenant, body.state, None, None, body.since)
    redelivered, seen, cursor = 0, 0, None
    while seen < _MAX_REDELIVERED:
        listed, cursor = await pager.list_page(query, _PAGE, cursor)
        seen += len(listed)
        ended = [one for one in await _filter_by_state(client, listed, body.state) if one.close_time is not None]
        redelivered += sum(await gather_bounded(partial(_restart_delivery, client, tenant), ended))
        if cursor is None:
            break
    return Redelivered(redelivered=redelivered, more=cursor is not None)


@router.get(
    "/webhooks/deliveries/{delivery_id}", operation_id="getDelivery", summary="Read a delivery", responses=PROBLEMS
)
async def read_delivery(
    delivery_id: DeliveryId, client: ClientDep, ui: TemporalUiDep, tenant: TenantDep
) -> DeliveryDetail:
    """Returns the delivery with all its attempts."""
    return await load_delivery(ui, await find_delivery(client, tenant, delivery_id))


@router.post(
    "/webhooks/deliveries/{delivery_id}/redeliver",
    operation_id="redeliverDelivery",
    summary="Deliver again",
    status_code=202,
    responses=PROBLEMS,
)
async def redeliver(
    delivery_id: DeliveryId, client: ClientDep, ui: TemporalUiDep, principal: PrincipalDep
) -> DeliveryDetail:
    """Delivers at once, with the same `webhook-id`. An open delivery makes one attempt now and then continues its
    schedule; an ended one restarts its schedule.
    """
    tenant = principal.tenant
    description = await find_delivery(client, tenant, delivery_id)
    while not (await _signal_attempt(client, description) or await _restart_delivery(client, tenant, description)):
        # it ended or restarted between the two calls
        description = await find_delivery(client, tenant, delivery_id)
    detail = await load_delivery(ui, await find_delivery(client, tenant, delivery_id))
    # What receivers answered is for those who may read it.
    return detail if principal.has(Scope.WEBHOOKS_READ) else detail.model_copy(update={"log": []})


async def _signal_attempt(client: Client, delivery: WorkflowExecutionDescription) -> bool:
    """Has an open delivery make an attempt now. Returns False if it has ended."""
    if delivery.close_time is not None:
        return False
    try:
        await client.get_workflow_handle(delivery.id).signal("deliver_now")
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


def _query(
    tenant: str | None, state: DeliveryState | None, run: str | None, host: str | None, since: datetime | None
) -> str:
    conditions = [f"WorkflowType = '{workflow_types.WEBHOOK_DELIVERY}'", *tenant_condition(tenant)]
    if state:
        conditions.append(_CONDITIONS[state])
    if run:
        conditions.append(f"SourceRun = '{run}'")
    if host:
        conditions.append(f"UrlHost = '{host}'")
    if since:
        conditions.append(f"StartTime >= '{to_query_time(since)}'")
    return " AND ".join(conditions)


async def _filter_by_state(
    client: Client, executions: list[WorkflowExecution], state: DeliveryState | None
) -> list[WorkflowExecutionDescription]:
    """Describes the executions again and keeps those in this state, because visibility lags."""
    return [now for now in await filter_latest(client, executions) if state in (None, find_delivery_state(now))]


async def _restart_delivery(client: Client, tenant: str, ended: WorkflowExecutionDescription) -> bool:
    """Starts an ended delivery again. Returns False if it is open, or if another request has just restarted it."""
    delivery = await fetch_input(client, ended, DeliveryInput)
    log = DeliveryLog(attempts=(await load_log(ended)).attempts)
    try:
        await client.start_workflow(
            workflow_types.WEBHOOK_DELIVERY,
            delivery.model_copy(update={"previous_attempts": log.attempts, "is_manual": True}),
            id=ended.id,
            task_queue=delivery.webhook.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            search_attributes=delivery_search_attributes(tenant, delivery.webhook, delivery.run_workflow_id),
            memo={LOG_MEMO: log, SUBJECT_MEMO: delivery.subject},
            static_summary=f"{parse_public_id(delivery.run_workflow_id)} to {delivery.webhook.host}, redelivered",
        )
    except WorkflowAlreadyStartedError:
        return False
    return True
