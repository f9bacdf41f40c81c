"""The response to published events: whether each was accepted, a duplicate or rejected."""

from fastapi import Response
from pydantic import Field

from sevenfold.adapters.events.ingest import AcceptedEvent, EventIngest
from sevenfold.api.dependencies import API_PREFIX, current_principal
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.http.request_id import traceparent
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.event_driven import VIA_HTTP, AcceptOutcome
from sevenfold.contracts.payload import Payload


class AcceptedItem(Payload):
    """The result for one event. `id` is the id that the gateway gave it, `eventId` its own."""

    status: str = Field(description="`accepted`, `duplicate` or `rejected`.")
    id: str | None = None
    event_id: str | None = None
    source: str | None = None
    detail: str | None = Field(default=None, description="Why it was rejected.")


class EventsAccepted(Payload):
    """The result for each event, in the order of the request."""

    items: list[AcceptedItem]
    accepted: int
    duplicate: int
    rejected: int


async def accept_event(ingest: EventIngest, tenant: str, event: CloudEvent, response: Response) -> EventsAccepted:
    """Accepts a single event. Raises 409 if another event has its source and id."""
    accepted = await ingest.accept(tenant, event, VIA_HTTP, current_principal.get().api_key_id, traceparent())
    item = to_accepted_item(event, accepted)
    if accepted.outcome is AcceptOutcome.CONFLICT:
        raise ProblemError(ProblemType.EVENT_CONFLICT, item.detail or "", run_id=item.id)
    response.headers["Location"] = f"{API_PREFIX}/events/{item.id}"
    return count_items([item])


def count_items(items: list[AcceptedItem]) -> EventsAccepted:
    """Counts the results of one request."""
    accepted, duplicate, rejected = (
        sum(item.status == status for item in items) for status in ("accepted", "duplicate", "rejected")
    )
    return EventsAccepted(items=items, accepted=accepted, duplicate=duplicate, rejected=rejected)


def to_accepted_item(event: CloudEvent, accepted: AcceptedEvent) -> AcceptedItem:
    """Returns the result for one event."""
    known = {"id": accepted.event_id, "event_id": event.id, "source": event.source}
    if accepted.outcome is AcceptOutcome.CONFLICT:
        detail = (
            "An event with this source and id, but other content, was accepted before. Use a new id for each event."
        )
        return AcceptedItem(status="rejected", detail=detail, **known)
    return AcceptedItem(status=accepted.outcome, **known)
