"""Pattern 3, event-driven: `POST /events`, what has come in, what it caused, and having it again."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from temporalio.client import WorkflowExecution

from sevenfold.adapters.events.stored import load_event
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.events.acceptance import AcceptedItem, EventsAccepted, accept_event, count_items, to_accepted_item
from sevenfold.api.events.requests import BATCH, STRUCTURED, invalid_event, parse_events
from sevenfold.api.events.views import EventDetail, EventSummary, find_event, load_event_tree, summarize_event
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.listing import find_execution, list_page
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam, to_query_time
from sevenfold.api.runs.start import check_storage
from sevenfold.contracts.cloudevents import CloudEvent, InvalidEventError
from sevenfold.contracts.events import VIA_HTTP, VIA_REPLAY, AcceptOutcome, to_keyword
from sevenfold.contracts.identity import derive_id, new_id
from sevenfold.contracts.payload import Payload

router = APIRouter(prefix=API_PREFIX, tags=["event-driven"], route_class=StrictJsonRoute)

EventId = Annotated[str, Path(description="An event's id here, such as `evt_…`.")]

_EXAMPLE = {
    "specversion": "1.0",
    "id": "c-12345",
    "source": "/shop/customers",
    "type": "customer.created",
    "data": {"id": "12345", "name": "Ada Lovelace", "email": "ada@analytical.example"},
}
_EVENT_SCHEMA = {**CloudEvent.model_json_schema(), "examples": [_EXAMPLE]}
_EVENT_SCHEMA.pop("$defs")
_EVENT_SCHEMA["properties"]["data"] = {"description": "Any JSON."}
_BATCH_SCHEMA = {
    "type": "array",
    "items": {},
    "description": "Events; each is answered for itself.",
    "examples": [[_EXAMPLE]],
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A CloudEvent, a batch of them, or any data with the attributes as `ce-` headers.",
        "content": {
            STRUCTURED: {"schema": _EVENT_SCHEMA},
            BATCH: {"schema": _BATCH_SCHEMA},
            "application/json": {"schema": {"anyOf": [_EVENT_SCHEMA, _BATCH_SCHEMA]}},
        },
    }
}


class EventPage(Payload):
    """A page of events, the latest first. `nextCursor` is null on the last page."""

    items: list[EventSummary]
    next_cursor: str | None


@router.post(
    "/events",
    operation_id="publishEvents",
    summary="Publish events",
    status_code=202,
    response_model_exclude_none=True,
    responses=PROBLEMS,
    openapi_extra=_BODY,
)
async def publish(request: Request, gateway: GatewayDep, tenant: TenantDep, response: Response) -> EventsAccepted:
    """Answers once all of them are in Temporal. An event's source and id are its idempotency key: the same event
    again, by whatever way, is a `duplicate` and drives nothing.
    """
    check_storage(gateway)
    batch = await parse_events(request)
    if batch.is_single:
        (only,) = batch.items
        if isinstance(only, InvalidEventError):
            raise invalid_event(only)
        return await accept_event(gateway, tenant, only, response)
    events = [item for item in batch.items if isinstance(item, CloudEvent)]
    accepted = iter(await gateway.event_ingest.accept_all(tenant, events, VIA_HTTP))
    return count_items(
        [
            to_accepted_item(item, next(accepted))
            if isinstance(item, CloudEvent)
            else AcceptedItem(status="rejected", detail=f"This is no CloudEvent: {item}.")
            for item in batch.items
        ]
    )


_Text = Annotated[str | None, Query(max_length=1_024, pattern=r"^[^\x00-\x1f]+$")]


@router.get("/events", operation_id="listEvents", summary="List events", responses=PROBLEMS)
async def list_events(
    gateway: GatewayDep,
    tenant: TenantDep,
    event_type: Annotated[_Text, Query(alias="type")] = None,
    source: _Text = None,
    correlation: _Text = None,
    since: TimeParam | None = None,
    until: TimeParam | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
) -> EventPage:
    """What Temporal's visibility knows, a moment late."""
    query = events_query(tenant, event_type, source, correlation)
    if since:
        query += f" AND StartTime >= '{to_query_time(since)}'"
    if until:
        query += f" AND StartTime < '{to_query_time(until)}'"
    listed, next_cursor = await list_page(gateway, query, limit, cursor)
    return EventPage(items=await gather_bounded(partial(_summary, gateway, tenant), listed), next_cursor=next_cursor)


def events_query(tenant: str, event_type: str | None, source: str | None, correlation: str | None) -> str:
    """The condition on events, for visibility."""
    conditions = ["WorkflowType = 'EventDriven'", f"Tenant = '{tenant}'"]
    for attribute, value in (("Task", event_type), ("EventSource", source), ("CorrelationId", correlation)):
        if value:
            conditions.append(f"{attribute} = '{to_keyword(value)}'")
    return " AND ".join(conditions)


async def _summary(gateway: Gateway, tenant: str, execution: WorkflowExecution) -> EventSummary:
    if execution.close_time is None:  # visibility lags
        execution = await find_execution(gateway, execution.id) or execution
    return await summarize_event(gateway, tenant, execution)


@router.get(
    "/events/{event_id}", operation_id="getEvent", summary="Read an event and what it caused", responses=PROBLEMS
)
async def read_event(event_id: EventId, gateway: GatewayDep, tenant: TenantDep) -> EventDetail:
    """As a tree: its reactions, the events that they published, the reactions to those, and so on."""
    return await load_event_tree(gateway, tenant, await find_event(gateway, tenant, event_id))


@router.post(
    "/events/{event_id}/replay",
    operation_id="replayEvent",
    summary="Replay an event",
    status_code=202,
    responses=PROBLEMS,
)
async def replay_event(
    event_id: EventId, gateway: GatewayDep, tenant: TenantDep, key: IdempotencyKeyDep, response: Response
) -> EventSummary:
    """As an event of its own, with a new id and `replayof`, which everything that follows from it carries too: nobody
    has to take it for live.
    """
    event = await load_event(gateway.client, await find_event(gateway, tenant, event_id))
    replay_id = derive_id("rpl", tenant, event_id, key) if key else new_id("rpl")
    replayed = CloudEvent.model_validate(
        {
            **event.to_json(),
            "id": f"{event.id[:200]}~{replay_id}",
            "replayof": event.attribute("replayof") or event.id,
        }
        | ({} if event.attribute("correlationid") is None else {"correlationid": replay_id})
    )
    accepted = await gateway.event_ingest.accept(tenant, replayed, VIA_REPLAY)
    response.headers["Location"] = f"{API_PREFIX}/events/{accepted.event_id}"
    if accepted.outcome is not AcceptOutcome.ACCEPTED:
        response.headers.update(REPLAYED)
    return await summarize_event(gateway, tenant, await find_event(gateway, tenant, accepted.event_id))
