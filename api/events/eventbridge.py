"""`POST /events/eventbridge`: takes events from an API destination of Amazon EventBridge as CloudEvents.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
"""

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from sevenfold.api.dependencies import API_PREFIX, TenantDep
from sevenfold.api.events.acceptance import EventsAccepted, accept_event
from sevenfold.api.events.dependencies import EventIngestDep
from sevenfold.api.events.requests import invalid_event
from sevenfold.api.http.disk_guard import DiskSpaceDep, check_storage
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts.cloudevents import InvalidEventError, event_from_json
from sevenfold.contracts.payload import JsonObject, Payload

router = APIRouter(prefix=API_PREFIX, tags=["event-driven"], route_class=StrictJsonRoute)

_EXAMPLE: dict[str, Any] = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "customer.created",
    "source": "com.example.shop",
    "account": "123456789012",
    "time": "2026-11-22T10:00:00Z",
    "region": "eu-central-1",
    "resources": [],
    "detail": {"id": "12345", "email": "ada@analytical.example"},
}

_Text = Annotated[str, Field(min_length=1, max_length=256)]


class EventBridgeEvent(Payload):
    """The envelope; AWS may add members to it."""

    model_config = ConfigDict(alias_generator=None, extra="ignore", json_schema_extra={"examples": [_EXAMPLE]})

    id: _Text
    detail_type: _Text = Field(alias="detail-type")
    source: _Text
    account: str = ""
    time: str | None = None
    region: str = ""
    resources: list[str] = []
    detail: JsonObject = {}


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
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": body.id,
        "source": body.source,
        "type": body.detail_type,
        "time": body.time,
        "subject": body.resources[0] if body.resources else None,
        "datacontenttype": "application/json",
        "awsaccount": body.account or None,
        "awsregion": body.region or None,
        "data": body.detail,
    }
    check_storage(disk)
    try:
        event = event_from_json({name: value for name, value in attributes.items() if value is not None})
    except InvalidEventError as error:
        raise invalid_event(error) from None
    return await accept_event(ingest, tenant, event, response)
