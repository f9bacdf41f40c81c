"""Pattern 3: workflow inputs, results and memos of events, reactions and derived events."""

import hashlib
import re
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from sevenfold.contracts.agents.interface import WorkflowTarget
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.filters import EventFilter
from sevenfold.contracts.identity import build_workflow_id, derive_id
from sevenfold.contracts.messages.maps import MessageFormat
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs.run import ID_PREFIXES, Pattern, RunInput, RunResult
from sevenfold.contracts.tracing import TraceContext
from sevenfold.contracts.webhooks.delivery import Webhook

# Maximum length of a chain of derived events.
MAX_HOPS = 16

# Values of `via` besides the names of brokers.
VIA_HTTP, VIA_DERIVED, VIA_REPLAY = "http", "derived", "replay"

# Memos of EventDriven: its EventPreview, and its DispatchSummary after the matching.
EVENT_MEMO = "event"
DISPATCH_MEMO = "dispatch"

# The memo of EventReaction that holds its ReactionCause.
CAUSE_MEMO = "cause"

# The memo of RejectedEvent that holds its Rejection.
REJECTION_MEMO = "rejection"
REJECTED_ID_PREFIX = "rej"

# Lists include an event's data up to this size as JSON.
_MAX_INLINE_BYTES = 4_000
_MAX_KEYWORD_BYTES = 255
_QUOTES = re.compile(r"[\"'`\\]")


def event_task_queue(task_queue: str) -> str:
    """The task queue of events, separate so that a flood of events does not delay interactive runs."""
    return f"{task_queue}-events"


def broker_task_queue(task_queue: str) -> str:
    """The task queue of publications to brokers, polled by the processes that are connected to them."""
    return f"{task_queue}-brokers"


def build_event_id(tenant: str, source: str, cloud_event_id: str) -> str:
    """Returns the public id of an event. Events with the same source and id are the same event."""
    return derive_id(ID_PREFIXES[Pattern.EVENT], tenant, source, cloud_event_id)


def build_reaction_id(tenant: str, event: str, subscription: str) -> str:
    """Returns the public id of a subscription's reaction to an event (`event`: its public id)."""
    return derive_id(ID_PREFIXES[Pattern.REACTION], tenant, event, subscription)


def ordering_workflow_id(tenant: str, subscription: str, value: str) -> str:
    """Returns the workflow id of the ordering semaphore of a subscription and ordering key."""
    return build_workflow_id(tenant, f"order:{subscription}:{derive_id('order', tenant, subscription, value)}")


def find_correlation_id(event: CloudEvent, public_id: str) -> str:
    """Returns the correlation id: the attribute `correlationid`, or the public id of the first event."""
    return to_keyword(event.attribute("correlationid") or public_id)


def count_hops(event: CloudEvent) -> int:
    """Returns the number of events between this one and its origin."""
    hops = event.attribute("hops") or "0"
    return int(hops) if hops.isdecimal() else 0


def to_keyword(text: str) -> str:
    """Converts text for search attributes and visibility queries: removes quotes, truncates to the 255 bytes of the
    keyword column, and appends a hash if anything changed.
    """
    plain = _QUOTES.sub("", text)
    if plain == text and len(text.encode()) <= _MAX_KEYWORD_BYTES:
        return text
    head = plain.encode()[: _MAX_KEYWORD_BYTES - 65].decode(errors="ignore")
    return f"{head}~{hashlib.sha256(text.encode()).hexdigest()}"


class OutboundRoute(Payload):
    """Route of an event to a broker: the broker's name in `sevenfold.toml`, the address there, and the task queue of
    the processes that are connected to it. `is_sender_chosen`: a message named the address, for its reply.
    """

    broker: str
    to: str
    task_queue: str
    format: MessageFormat = MessageFormat.CLOUDEVENTS
    is_sender_chosen: bool = False


class EventInput(Payload):
    """Input of `EventDriven`. `via` is where the event came from: one of the constants above, or a broker's name.
    `traceparent`: of the request that brought it; an event's own takes precedence. `reply_route`: where it goes
    whatever the routes are, because it is a reply.
    """

    event: CloudEvent
    via: str
    traceparent: str = ""
    reply_route: OutboundRoute | None = None

    @property
    def trace(self) -> str:
        """The `traceparent` that its reactions continue; empty without one."""
        own = self.event.attribute("traceparent")
        return own if own and TraceContext.parse(own) else self.traceparent


class EventPreview(Payload):
    """An event in lists; without its data if that is large."""

    event: CloudEvent
    via: str
    content_hash: str
    is_complete: bool

    @classmethod
    def from_input(cls, event_input: EventInput) -> "EventPreview":
        """Returns the memo of an event."""
        event = event_input.event
        is_complete = len(event.model_dump_json()) <= _MAX_INLINE_BYTES
        head = event if is_complete else event.model_copy(update={"data": None, "data_base64": None})
        return cls(event=head, via=event_input.via, content_hash=event.content_hash(), is_complete=is_complete)


class SemaphoreRef(Payload):
    """Reference to an ordering semaphore: its workflow id and its capacity. `is_ordered`: the ingest acquires it, so
    that the order of acceptance is the order of reactions.
    """

    id: str
    capacity: int
    is_ordered: bool


class ReactionSpec(Payload):
    """A reaction that an event triggers, without the event itself."""

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


class DispatchSummary(Payload):
    """What an event triggered: the reactions' public ids by subscription, and the routes to brokers."""

    reactions: dict[str, str] = {}
    routes: list[OutboundRoute] = []


class Dispatch(DispatchSummary):
    """Result of the matching. `queued_reactions` are the reactions that wait for ordering semaphores and have not
    started. `refusal` is the reason why the event becomes a dead letter instead.
    """

    queued_reactions: list[ReactionSpec] = []
    refusal: str | None = None


class Grant(Payload):
    """A reaction that holds its semaphores and may start. `traceparent`: what it continues."""

    event: CloudEvent
    spec: ReactionSpec
    traceparent: str = ""


class ReactionCause(Payload):
    """The cause of a reaction, in its memo: the subscription, and the event's own id, source and type."""

    subscription: str
    id: str
    source: str
    type: str


class ReactionInput(RunInput):
    """Input of `EventReaction`, without the event: `request.context` holds its attributes, `request.data` its data.

    `event_id` is the event's public id, and `request.run_id` the reaction's.
    """

    event_id: str
    subscription: str
    publishes: str | None = None
    publish_when: EventFilter | None = None
    max_attempts: int
    semaphores: list[SemaphoreRef] = []

    @property
    def cause(self) -> CloudEvent:
        """The event without its data."""
        return CloudEvent.model_validate(self.request.context["event"])


class PublishedEvent(Payload):
    """A derived event: its public id, and its own id and type."""

    event_id: str
    id: str
    type: str


class ReactionResult(RunResult):
    """Result of `EventReaction`."""

    published: list[PublishedEvent] = []


class PublishEventsInput(Payload):
    """Events that the ingest accepts on behalf of a tenant."""

    tenant: str
    events: list[CloudEvent]


class PublishToBrokerInput(Payload):
    """An event and the broker route to publish it to. `traceparent`: what the publication continues."""

    event: CloudEvent
    route: OutboundRoute
    traceparent: str = ""


class SemaphoreRequest(Payload):
    """Request of an event to hold a semaphore for one of its reactions, with their workflow ids."""

    semaphore: SemaphoreRef
    event_workflow_id: str
    reaction_workflow_id: str


class AcquireInput(Payload):
    """Requests for one semaphore, in order."""

    requests: list[SemaphoreRequest]


class SignalInput(Payload):
    """A signal between an event, its reaction and a semaphore."""

    workflow_id: str
    signal: str
    arguments: list[str] = []


class SemaphoreState(Payload):
    """Input of `OrderingSemaphore`: waiting requests in order, and current holders."""

    capacity: int
    waiting: list[SemaphoreRequest] = []
    holders: list[SemaphoreRequest] = []


class AcceptOutcome(StrEnum):
    """Result of accepting an event."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Rejection(Payload):
    """Why a message is a dead letter: `poison` is not a CloudEvent, `conflict` has the id of a different event."""

    kind: str
    reason: str
    via: str
    at: datetime


class RejectedEventInput(Payload):
    """Input of `RejectedEvent`: the message as received, and the reason."""

    rejection: Rejection
    headers: dict[str, str] = {}
    body_base64: str = Field(default="", description="The first megabyte of the body.")
    size: int
