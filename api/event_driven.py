"""Pattern 3, event-driven: publish, list, read and replay events."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from sevenfold.adapters.events.stored import load_event
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.api.dependencies import API_PREFIX, ClientDep, ListedTenantDep, PrincipalDep, TenantDep
from sevenfold.api.events.acceptance import AcceptedItem, EventsAccepted, accept_event, count_items, to_accepted_item
from sevenfold.api.events.dependencies import EventIngestDep, EventReaderDep
from sevenfold.api.events.requests import BATCH, STRUCTURED, invalid_event, parse_events
from sevenfold.api.events.views import EventDetail, EventSummary
from sevenfold.api.http.disk_guard import DiskSpaceDep, check_storage
from sevenfold.api.http.idempotency import REPLAYED, IdempotencyKeyDep
from sevenfold.api.http.listing import PagerDep, tenant_condition
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.request_id import traceparent
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import TimeParam, to_query_time
from sevenfold.contracts import workflow_types
from sevenfold.contracts.access.principals import Scope
from sevenfold.contracts.events.cloudevents import CloudEvent, InvalidEventError
from sevenfold.contracts.events.event_driven import VIA_HTTP, VIA_REPLAY, AcceptOutcome, to_keyword
from sevenfold.contracts.identity import derive_id, new_id
from sevenfold.contracts.payload import Payload

router = APIRouter(prefix=API_PREFIX, tags=["event-driven"], route_class=StrictJsonRoute)

EventId = Annotated[str, Path(description="The id that the gateway gave the event, such as `evt_…`.")]

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
    "description": "Events; each has a result of its own.",
    "examples": [[_EXAMPLE]],
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A CloudEvent, a batch of CloudEvents, or any data with the attributes as `ce-` headers.",
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
async def publish(
    request: Request, ingest: EventIngestDep, disk: DiskSpaceDep, principal: PrincipalDep, response: Response
) -> EventsAccepted:
    """Answers once all events are in Temporal. An event's source and id are its idempotency key: the same event sent
    again, over HTTP or a broker, is a `duplicate` and starts nothing.
    """
    check_storage(disk)
    batch = await parse_events(request)
    if batch.is_single:
        (only,) = batch.items
        if isinstance(only, InvalidEventError):
            raise invalid_event(only)
        return await accept_event(ingest, principal.tenant, only, response)
    events = [item for item in batch.items if isinstance(item, CloudEvent)]
    accepted = iter(await ingest.accept_all(principal.tenant, events, VIA_HTTP, principal.api_key_id, traceparent()))
    return count_items(
        [
            to_accepted_item(item, next(accepted))
            if isinstance(item, CloudEvent)
            else AcceptedItem(status="rejected", detail=f"The item is not a valid CloudEvent: {item}.")
            for item in batch.items
        ]
    )


_Text = Annotated[str | None, Query(max_length=1_024, pattern=r"^[^\x00-\x1f]+$")]


@router.get("/events", operation_id="listEvents", summary="List events", responses=PROBLEMS)
async def list_events(
    reader: EventReaderDep,
    pager: PagerDep,
    tenant: ListedTenantDep,
    event_type: Annotated[_Text, Query(alias="type")] = None,
    source: _Text = None,
    correlation: _Text = None,
    since: TimeParam | None = None,
    until: TimeParam | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
) -> EventPage:
    """Lists what Temporal's visibility knows, which lags by a moment."""
    query = events_query(tenant, event_type, source, correlation)
    if since:
        query += f" AND StartTime >= '{to_query_time(since)}'"
    if until:
        query += f" AND StartTime < '{to_query_time(until)}'"
    listed, next_cursor = await pager.list_page(query, limit, cursor)
    return EventPage(items=await gather_bounded(reader.refresh, listed), next_cursor=next_cursor)


def events_query(tenant: str | None, event_type: str | None, source: str | None, correlation: str | None) -> str:
    """Builds the visibility query for events."""
    conditions = [f"WorkflowType = '{workflow_types.EVENT_DRIVEN}'", *tenant_condition(tenant)]
    for attribute, value in (("Task", event_type), ("EventSource", source), ("CorrelationId", correlation)):
        if value:
            conditions.append(f"{attribute} = '{to_keyword(value)}'")
    return " AND ".join(conditions)


@router.get(
    "/events/{event_id}", operation_id="getEvent", summary="Read an event and what it caused", responses=PROBLEMS
)
async def read_event(event_id: EventId, reader: EventReaderDep, tenant: TenantDep) -> EventDetail:
    """Returns the event as a tree: its reactions, the events that they published, the reactions to those, etc."""
    return await reader.load_tree(await reader.find(tenant, event_id))


@router.post(
    "/events/{event_id}/replay",
    operation_id="replayEvent",
    summary="Replay an event",
    status_code=202,
    responses=PROBLEMS,
)
async def replay_event(
    event_id: EventId,
    client: ClientDep,
    ingest: EventIngestDep,
    reader: EventReaderDep,
    principal: PrincipalDep,
    key: IdempotencyKeyDep,
    response: Response,
) -> EventSummary:
    """Publishes the event again with a new id and the attribute `replayof`. All events derived from it carry
    `replayof` too, so that consumers can distinguish a replay from a live event.
    """
    tenant = principal.tenant
    event = await load_event(client, await reader.find(tenant, event_id))
    replay_id = derive_id("rpl", tenant, event_id, key) if key else new_id("rpl")
    replayed = CloudEvent.model_validate(
        {
            **event.to_json(),
            "id": f"{event.id[:200]}~{replay_id}",
            "replayof": event.attribute("replayof") or event.id,
        }
        | ({} if event.attribute("correlationid") is None else {"correlationid": replay_id})
    )
    accepted = await ingest.accept(tenant, replayed, VIA_REPLAY, principal.api_key_id, traceparent())
    response.headers["Location"] = f"{API_PREFIX}/events/{accepted.event_id}"
    if accepted.outcome is not AcceptOutcome.ACCEPTED:
        response.headers.update(REPLAYED)
    summary = await reader.summarize(await reader.find(tenant, accepted.event_id))
    return summary if principal.has(Scope.EVENTS_READ) else summary.model_copy(update={"event": {}})
