"""Pattern 3: events, the reactions to them, and what those publish, as their workflows take and return it."""

import hashlib
import re
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from contracts.agent import WorkflowTarget
from contracts.cloudevents import CloudEvent
from contracts.event_filters import EventFilter
from contracts.identity import keyed_id, workflow_id
from contracts.payload import JsonObject, Payload
from contracts.runs import ID_PREFIXES, Pattern, RunInput, RunResult
from contracts.webhooks import Webhook

# Derived events of derived events: so many in a row.
MOST_HOPS = 16

# What events came by, beside the names of brokers.
HTTP, DERIVED, REPLAY = "http", "derived", "replay"

# The memo of an EventDriven that holds its EventHead, and the one that holds its Dispatch once it has been matched.
EVENT = "event"
DISPATCH = "dispatch"

# The memo of an EventReaction that holds its ReactionCause.
CAUSE = "cause"

# The memo of a RejectedEvent that holds its Rejection.
REJECTION = "rejection"
REJECTED_PREFIX = "rej"

# An event with its data stands in lists if it is no larger as JSON.
_LISTED_BYTES = 4_000
_INDEXED_BYTES = 255
_QUOTES = re.compile(r"[\"'`\\]")


def event_queue(task_queue: str) -> str:
    """The task queue of events: a flood of them takes no place of those who wait for answers."""
    return f"{task_queue}-events"


def broker_queue(task_queue: str) -> str:
    """The task queue of what is published to brokers: the processes that are connected to them."""
    return f"{task_queue}-brokers"


def event_id(tenant: str, source: str, identity: str) -> str:
    """The public id of an event: CloudEvents are the same when source and id are."""
    return keyed_id(ID_PREFIXES[Pattern.EVENT], tenant, source, identity)


def reaction_id(tenant: str, event: str, subscription: str) -> str:
    """The public id of a subscription's one reaction to an event, of which the public id is given."""
    return keyed_id(ID_PREFIXES[Pattern.REACTION], tenant, event, subscription)


def lane_of(tenant: str, subscription: str, value: str) -> str:
    """The workflow id of the lane in which a subscription's events with that value take turns."""
    return workflow_id(tenant, f"lane:{subscription}:{keyed_id('lane', tenant, subscription, value)}")


def correlation_of(event: CloudEvent, public_id: str) -> str:
    """What all events of one origin have in common: the first one's public id, unless its producer has named one."""
    return indexed(event.attribute("correlationid") or public_id)


def hops_of(event: CloudEvent) -> int:
    """How many events lie between this one and its origin."""
    hops = event.attribute("hops") or "0"
    return int(hops) if hops.isdecimal() else 0


def indexed(text: str) -> str:
    """As it stands in search attributes and in queries for them: what is longer than SQL's 255 characters, or would
    end a quotation, is cut and marked.
    """
    plain = _QUOTES.sub("", text)
    if plain == text and len(text.encode()) <= _INDEXED_BYTES:
        return text
    head = plain.encode()[: _INDEXED_BYTES - 65].decode(errors="ignore")
    return f"{head}~{hashlib.sha256(text.encode()).hexdigest()}"


class EventInput(Payload):
    """The one object that `EventDriven` takes. `via` is what it came by: one of the above, or a broker's name."""

    event: CloudEvent
    via: str


class EventHead(Payload):
    """An event in lists; without its data where that is large."""

    event: CloudEvent
    via: str
    mark: str
    whole: bool

    @classmethod
    def of(cls, given: EventInput) -> "EventHead":
        """What stands in the memo."""
        event = given.event
        whole = len(event.model_dump_json()) <= _LISTED_BYTES
        head = event if whole else event.model_copy(update={"data": None, "data_base64": None})
        return cls(event=head, via=given.via, mark=event.payload_mark(), whole=whole)


class Lane(Payload):
    """Where a reaction waits for its turn: a lane's workflow id, and how many may be inside at once. `ordered`: the
    intake enters it too, so that the order of acceptance is the order of turns.
    """

    id: str
    capacity: int
    ordered: bool


class ReactionOrder(Payload):
    """A reaction that an event calls for, but for the event itself."""

    id: str
    subscription: str
    agent: str
    target: WorkflowTarget | None = None
    task: str
    params: JsonObject = {}
    publishes: str | None = None
    publish_when: EventFilter | None = None
    timeout: float
    max_attempts: int
    priority: int
    webhook: Webhook | None = None
    lanes: list[Lane] = []


class OutboundRoute(Payload):
    """Where an event is published to outside: a broker's name in `sevenfold.toml`, the address there, and the task
    queue of the processes that are connected to it.
    """

    broker: str
    to: str
    task_queue: str


class DispatchHead(Payload):
    """What an event called for: the reactions' public ids by subscription, and the routes to brokers."""

    reactions: dict[str, str] = {}
    routes: list[OutboundRoute] = []


class Dispatch(DispatchHead):
    """The same when it has been found: `in_turn` are those of the reactions that have not begun yet, since they wait
    for their turn. `refused`: why the event is a dead letter instead.
    """

    in_turn: list[ReactionOrder] = []
    refused: str | None = None


class Turn(Payload):
    """A reaction whose turn it is."""

    event: CloudEvent
    order: ReactionOrder


class ReactionCause(Payload):
    """What a reaction is to, in its memo: the subscription, and the event's own id, source and type."""

    subscription: str
    id: str
    source: str
    type: str


class ReactionInput(RunInput):
    """The one object that `EventReaction` takes."""

    event: CloudEvent
    event_id: str
    order: ReactionOrder


class PublishedEvent(Payload):
    """A derived event: its public id, and its own id and type."""

    event_id: str
    id: str
    type: str


class ReactionResult(RunResult):
    """The one object that `EventReaction` returns."""

    published: list[PublishedEvent] = []


class PublishOrder(Payload):
    """Events to be accepted as if they had come in, on a tenant's behalf."""

    tenant: str
    events: list[CloudEvent]


class BrokerOrder(Payload):
    """An event to be published to a broker."""

    event: CloudEvent
    route: OutboundRoute


class LaneEntry(Payload):
    """An event that wants its turn in a lane for one of its reactions, by their workflow ids."""

    lane: Lane
    event: str
    reaction: str


class LaneEntries(Payload):
    """Those that enter a lane, in order."""

    entries: list[LaneEntry]


class LaneSignal(Payload):
    """A word between an event, its reaction and a lane: the workflow id, the signal, and what it says."""

    to: str
    signal: str
    says: list[str] = []


class LaneState(Payload):
    """The one object that `EventLane` takes: who waits, in order, and who is inside."""

    capacity: int
    waiting: list[LaneEntry] = []
    inside: list[LaneEntry] = []


class Acceptance(StrEnum):
    """What became of an event that came in."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Rejection(Payload):
    """Why a message is a dead letter: `poison` is no CloudEvent, `conflict` has the id of another event."""

    kind: str
    reason: str
    via: str
    at: datetime


class RejectedInput(Payload):
    """The one object that `RejectedEvent` takes: the message as it came, and why it was not accepted."""

    rejection: Rejection
    headers: dict[str, str] = {}
    body_base64: str = Field(default="", description="The first megabyte of it.")
    size: int
