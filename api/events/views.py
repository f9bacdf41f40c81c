"""Events as the API shows them, with the reactions and derived events that they caused."""

from datetime import datetime
from typing import Any

from pydantic import Field

from sevenfold.api.runs.views import RunSummary
from sevenfold.contracts.events.event_driven import OutboundRoute
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.run import RunError, RunStatus


class EventLinks(Payload):
    """Links of an event."""

    self: str
    replay: str
    temporal_ui: str | None


class EventSummary(Payload):
    """An event in a list. Data of more than 4 kB is left out; `links.self` has it."""

    id: str
    tenant: str
    event: dict[str, Any]
    via: str
    status: RunStatus
    received_at: datetime
    closed_at: datetime | None
    unreadable: bool = Field(default=False, description="The event cannot be decoded; see `links.temporalUi`.")
    links: EventLinks


class ReactionView(RunSummary):
    """A subscription's reaction, and the events that it published."""

    subscription: str
    error: RunError | None
    published: list["EventNode"]


class EventNode(Payload):
    """An event in a tree. `isComplete` is false where the tree is cut: read this event by its own id."""

    id: str
    event_id: str
    type: str
    status: RunStatus
    reactions: list[ReactionView]
    is_complete: bool = True


class EventDetail(EventSummary):
    """An event with all its data, and the tree of what it caused."""

    error: RunError | None
    routes: list[OutboundRoute]
    reactions: list[ReactionView]
