"""`POST /events/eventbridge`: takes events from an API destination of Amazon EventBridge as CloudEvents."""

from fastapi import APIRouter, Response

from sevenfold.api.dependencies import API_PREFIX, TenantDep
from sevenfold.api.events.acceptance import EventsAccepted, accept_event
from sevenfold.api.events.dependencies import EventIngestDep
from sevenfold.api.events.requests import invalid_event
from sevenfold.api.http.disk_guard import DiskSpaceDep, check_storage
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts.events.cloudevents import InvalidEventError, event_from_json
from sevenfold.contracts.events.eventbridge import EventBridgeEvent

router = APIRouter(prefix=API_PREFIX, tags=["event-driven"], route_class=StrictJsonRoute)


@router.post(
    "/events/eventbridge",
    operation_id="publishEventBridgeEvent",
    summary="Publish an event from Amazon EventBridge",
    status_code=202,
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def accept_eventbridge_event(
    body: EventBridgeEvent, ingest: EventIngestDep, disk: DiskSpaceDep, tenant: TenantDep, response: Response
) -> EventsAccepted:
    """Maps `detail-type` to the event's type, `detail` to its data, and account and region to the extension
    attributes `awsaccount` and `awsregion`. A repeated delivery of EventBridge is a duplicate.
    """
    check_storage(disk)
    try:
        event = event_from_json(body.to_cloud_event())
    except InvalidEventError as error:
        raise invalid_event(error) from None
    return await accept_event(ingest, tenant, event, response)
