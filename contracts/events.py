"""Pattern 3: events, the reactions to them, and what those publish, as their workflows take and return it."""

import hashlib
import re
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from sevenfold.contracts.agent import WorkflowTarget
from sevenfold.contracts.cloudevents import CloudEvent
from sevenfold.contracts.event_filters import EventFilter
from sevenfold.contracts.identity import build_workflow_id, derive_id
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs import ID_PREFIXES, Pattern, RunInput, RunResult
from sevenfold.contracts.webhooks import Webhook

# Derived events of derived events: so many in a row.
MAX_HOPS = 16

# What events came by, beside the names of brokers.
VIA_HTTP, VIA_DERIVED, VIA_REPLAY = "http", "derived", "replay"

# The memo of an EventDriven that holds its EventPreview, and the one that holds its Dispatch once it has been
# matched.
EVENT_MEMO = "event"
DISPATCH_MEMO = "dispatch"

# The memo of an EventReaction that holds its ReactionCause.
CAUSE_MEMO = "cause"

# The memo of a RejectedEvent that holds its Rejection.
REJECTION_MEMO = "rejection"
REJECTED_ID_PREFIX = "rej"

# An event with its data stands in lists if it is no larger as JSON.
_MAX_INLINE_BYTES = 4_000
_MAX_KEYWORD_BYTES = 255
_QUOTES = re.compile(r"[\"'`\\]")


def event_task_queue(task_queue: str) -> str:
    """The task queue of events: a flood of them takes no place of those who wait for answers."""
    return f"{task_queue}-events"


def broker_task_queue(task_queue: str) -> str:
    """The task queue of what is published to brokers: the processes that are connected to them."""
    return f"{task_queue}-brokers"


def build_event_id(tenant: str, source: str, cloud_event_id: str) -> str:
    """The public id of an event: CloudEvents are the same when source and id are."""
    return derive_id(ID_PREFIXES[Pattern.EVENT], tenant, source, cloud_event_id)


def build_reaction_id(tenant: str, event: str, subscription: str) -> str:
    """The public id of a subscription's one reaction to an event, of which the public id is given."""
    return derive_id(ID_PREFIXES[Pattern.REACTION], tenant, event, subscription)


def ordering_workflow_id(tenant: str, subscription: str, value: str) -> str:
    """The workflow id of the lane in which a subscription's events with that value take turns."""
    return build_workflow_id(tenant, f"order:{subscription}:{derive_id('order', tenant, subscription, value)}")


def find_correlation_id(event: CloudEvent, public_id: str) -> str:
    """What all events of one origin have in common: the first one's public id, unless its producer has named one."""
    return to_keyword(event.attribute("correlationid") or public_id)


def count_hops(event: CloudEvent) -> int:
    """How many events lie between this one and its origin."""
    hops = event.attribute("hops") or "0"
    return int(hops) if hops.isdecimal() else 0


def to_keyword(text: str) -> str:
    """As it stands in search attributes and in queries for them: what is longer than SQL's 255 characters, or would
    end a quotation, is cut and marked.
    """
    plain = _QUOTES.sub("", text)
    if plain == text and len(text.encode()) <= _MAX_KEYWORD_BYTES:
        return text
    head = plain.encode()[: _MAX_KEYWORD_BYTES - 65].decode(errors="ignore")
    return f"{head}~{hashlib.sha256(text.encode()).hexdigest()}"


class EventInput(Payload):
    """The one object that `EventDriven` takes. `via` is what it came by: one of the above, or a broker's name."""

    event: CloudEvent
    via: str


class EventPreview(Payload):
    """An event in lists; without its data where that is large."""

    event: CloudEvent
    via: str
    content_hash: str
    is_complete: bool

    @classmethod
    def from_input(cls, event_input: EventInput) -> "EventPreview":
        """What stands in the memo."""
        event = event_input.event
        is_complete = len(event.model_dump_json()) <= _MAX_INLINE_BYTES
        head = event if is_complete else event.model_copy(update={"data": None, "data_base64": None})
        return cls(event=head, via=event_input.via, content_hash=event.content_hash(), is_complete=is_complete)


class SemaphoreRef(Payload):
    """Where a reaction waits for its turn: a lane's workflow id, and how many may be inside at once. `is_ordered`:
    the intake enters it too, so that the order of acceptance is the order of turns.
    """

    id: str
    capacity: int
    is_ordered: bool


class ReactionSpec(Payload):
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
    semaphores: list[SemaphoreRef] = []


class OutboundRoute(Payload):
    """Where an event is published to outside: a broker's name in `sevenfold.toml`, the address there, and the task
    queue of the processes that are connected to it.
    """

    broker: str
    to: str
    task_queue: str


class DispatchSummary(Payload):
    """What an event called for: the reactions' public ids by subscription, and the routes to brokers."""

    reactions: dict[str, str] = {}
    routes: list[OutboundRoute] = []


class Dispatch(DispatchSummary):
    """The same when it has been found: `queued_reactions` are those of the reactions that have not begun yet, since
    they wait for their turn. `refusal`: why the event is a dead letter instead.
    """

    queued_reactions: list[ReactionSpec] = []
    refusal: str | None = None


class Grant(Payload):
    """A reaction whose turn it is."""

    event: CloudEvent
    spec: ReactionSpec


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
    spec: ReactionSpec


class PublishedEvent(Payload):
    """A derived event: its public id, and its own id and type."""

    event_id: str
    id: str
    type: str


class ReactionResult(RunResult):
    """The one object that `EventReaction` returns."""

    published: list[PublishedEvent] = []


class PublishEventsInput(Payload):
    """Events to be accepted as if they had come in, on a tenant's behalf."""

    tenant: str
    events: list[CloudEvent]


class PublishToBrokerInput(Payload):
    """An event to be published to a broker."""

    event: CloudEvent
    route: OutboundRoute


class SemaphoreRequest(Payload):
    """An event that wants its turn in a lane for one of its reactions, by their workflow ids."""

    semaphore: SemaphoreRef
    event_workflow_id: str
    reaction_workflow_id: str


class AcquireInput(Payload):
    """Those that enter a lane, in order."""

    requests: list[SemaphoreRequest]


class SignalInput(Payload):
    """A word between an event, its reaction and a lane: the workflow id, the signal, and what it says."""

    workflow_id: str
    signal: str
    arguments: list[str] = []


class SemaphoreState(Payload):
    """The one object that `OrderingSemaphore` takes: who waits, in order, and who is inside."""

    capacity: int
    waiting: list[SemaphoreRequest] = []
    holders: list[SemaphoreRequest] = []


class AcceptOutcome(StrEnum):
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


class RejectedEventInput(Payload):
    """The one object that `RejectedEvent` takes: the message as it came, and why it was not accepted."""

    rejection: Rejection
    headers: dict[str, str] = {}
    body_base64: str = Field(default="", description="The first megabyte of it.")
    size: int
