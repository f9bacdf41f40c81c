"""What `POST /events` and EventBridge answer: what became of each event."""

from fastapi import Response
from pydantic import Field

from sevenfold.adapters.events.ingest import AcceptedEvent
from sevenfold.api.dependencies import API_PREFIX, Gateway
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.contracts.cloudevents import CloudEvent
from sevenfold.contracts.events import VIA_HTTP, AcceptOutcome
from sevenfold.contracts.payload import Payload


class AcceptedItem(Payload):
    """What became of an event. `id` is the event's id here, `eventId` its own."""

    status: str = Field(description="`accepted`, `duplicate` or `rejected`.")
    id: str | None = None
    event_id: str | None = None
    source: str | None = None
    detail: str | None = Field(default=None, description="Why it was rejected.")


class EventsAccepted(Payload):
    """What became of each event, in the order in which they came."""

    items: list[AcceptedItem]
    accepted: int
    duplicate: int
    rejected: int


async def accept_event(gateway: Gateway, tenant: str, event: CloudEvent, response: Response) -> EventsAccepted:
    """The answer to a single event. Raises the problem of one whose id belongs to another."""
    accepted = await gateway.event_ingest.accept(tenant, event, VIA_HTTP)
    item = to_accepted_item(event, accepted)
    if accepted.outcome is AcceptOutcome.CONFLICT:
        raise ProblemError(ProblemType.EVENT_CONFLICT, item.detail or "", run_id=item.id)
    response.headers["Location"] = f"{API_PREFIX}/events/{item.id}"
    return count_items([item])


def count_items(items: list[AcceptedItem]) -> EventsAccepted:
    """The answer to a request with these events."""
    accepted, duplicate, rejected = (
        sum(item.status == status for item in items) for status in ("accepted", "duplicate", "rejected")
    )
    return EventsAccepted(items=items, accepted=accepted, duplicate=duplicate, rejected=rejected)


def to_accepted_item(event: CloudEvent, accepted: AcceptedEvent) -> AcceptedItem:
    """What became of one event."""
    known = {"id": accepted.event_id, "event_id": event.id, "source": event.source}
    if accepted.outcome is AcceptOutcome.CONFLICT:
        detail = "Another event with this source and id was accepted before. Give every event an id of its own."
        return AcceptedItem(status="rejected", detail=detail, **known)
    return AcceptedItem(status=accepted.outcome, **known)
