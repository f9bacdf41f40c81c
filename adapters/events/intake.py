"""Takes events in: the one way for all that come by HTTP, from a broker, or from an agent."""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from temporalio.client import Client
from temporalio.common import (
    Priority,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from adapters.concurrency import few_at_once
from adapters.events.in_order import Lines, Place
from adapters.events.lanes import enter_lane, ordered_lane
from adapters.events.matching import reacting
from adapters.events.subscription_book import SubscriptionBook
from adapters.search_attributes import keywords
from contracts.cloudevents import MOST_EVENT_BYTES, CloudEvent
from contracts.events import (
    EVENT,
    REJECTED_PREFIX,
    REJECTION,
    Acceptance,
    EventHead,
    EventInput,
    LaneEntry,
    RejectedInput,
    Rejection,
    correlation_of,
    event_id,
    event_queue,
    indexed,
    reaction_id,
)
from contracts.identity import keyed_id, workflow_id
from contracts.runs import EVENT_ATTRIBUTES, RUN_ATTRIBUTES, WORKFLOW_TYPES, Pattern

_SUMMARY_LENGTH = 160


@dataclass(frozen=True)
class Accepted:
    """An event's public id and what became of it."""

    event_id: str
    outcome: Acceptance


@dataclass(frozen=True)
class Plan:
    """How events are accepted. `carry_out`, in its place, may be called until it succeeds: events enter their lanes
    before they count as accepted, so the order of acceptance is the order of turns.
    """

    place: Place
    carry_out: Callable[[], Awaitable[list[Accepted]]]


class EventIntake:
    """An event is one workflow, whose id is made of its tenant, source and id: Temporal finds the duplicates."""

    def __init__(self, client: Client, task_queue: str, book: SubscriptionBook) -> None:
        self._client = client
        self._task_queue = task_queue
        self.book = book
        self._lines = Lines()

    async def accept(self, tenant: str, event: CloudEvent, via: str) -> Accepted:
        """Returns once the event is in Temporal, and in the lanes of those who react to it in order.

        Raises RPCError when it is not known to be: accept it again then.
        """
        return (await self.accept_all(tenant, [event], via))[0]

    async def accept_all(self, tenant: str, events: Sequence[CloudEvent], via: str) -> list[Accepted]:
        """As `accept`, for several: they enter their lanes in the order in which they are given."""
        plan = await self.plan(tenant, events, via)
        async with plan.place:
            return await plan.carry_out()

    async def plan(self, tenant: str, events: Sequence[CloudEvent], via: str) -> "Plan":
        """What accepting them takes. Their place among the events of their lanes is taken by it: it has to be entered
        and left.
        """
        by_lane: dict[str, list[LaneEntry]] = defaultdict(list)
        for event in events:
            for entry in await self._entries(tenant, event):
                by_lane[entry.lane.id].append(entry)

        async def start(event: CloudEvent) -> Accepted:
            return await self._start(tenant, EventInput(event=event, via=via))

        async def carry_out() -> list[Accepted]:
            accepted = await few_at_once(start, events)
            await few_at_once(partial(enter_lane, self._client, self._task_queue), by_lane.values())
            return accepted

        return Plan(self._lines.stand_in(by_lane), carry_out)

    async def _entries(self, tenant: str, event: CloudEvent) -> list[LaneEntry]:
        public = event_id(tenant, event.source, event.id)
        entries = []
        for subscription in reacting(await self.book.of(tenant), event):
            lane = ordered_lane(tenant, subscription, event)
            if lane is not None:
                reaction = workflow_id(tenant, reaction_id(tenant, public, subscription.name))
                entries.append(LaneEntry(lane=lane, event=workflow_id(tenant, public), reaction=reaction))
        return entries

    async def _start(self, tenant: str, given: EventInput) -> Accepted:
        event = given.event
        public = event_id(tenant, event.source, event.id)
        head = EventHead.of(given)
        try:
            await self._client.start_workflow(
                WORKFLOW_TYPES[Pattern.EVENT],
                given,
                id=workflow_id(tenant, public),
                task_queue=event_queue(self._task_queue),
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={EVENT: head},
                search_attributes=_attributes(tenant, event, public),
                static_summary=f"{event.type} from {event.source}"[:_SUMMARY_LENGTH],
                priority=Priority(fairness_key=tenant),
                request_eager_start=True,
            )
        except WorkflowAlreadyStartedError:
            return Accepted(public, await self._known(tenant, public, head))
        return Accepted(public, Acceptance.ACCEPTED)

    async def _known(self, tenant: str, public: str, head: EventHead) -> Acceptance:
        description = await self._client.get_workflow_handle(workflow_id(tenant, public)).describe()
        first: EventHead = await description.memo_value(EVENT, type_hint=EventHead)
        if first.mark == head.mark:
            return Acceptance.DUPLICATE
        reason = (
            f"An event with this source and id was accepted before, as {public}, and said something else. Producers "
            "have to give every event an id of its own."
        )
        body = head.event.model_dump_json(exclude_none=True).encode()
        await self.reject(tenant, "conflict", reason, head.via, {}, body)
        return Acceptance.CONFLICT

    async def reject(
        self, tenant: str, kind: str, reason: str, via: str, headers: Mapping[str, str], body: bytes
    ) -> str:
        """Keeps a message that is no event as a dead letter; the same message again is the same dead letter."""
        rejection = Rejection(kind=kind, reason=reason, via=via, at=datetime.now(UTC))
        mark = hashlib.sha256(repr(sorted(headers.items())).encode() + body).hexdigest()
        public = keyed_id(REJECTED_PREFIX, tenant, f"{kind}:{via}", mark)
        with suppress(WorkflowAlreadyStartedError):
            await self._client.start_workflow(
                "RejectedEvent",
                RejectedInput(
                    rejection=rejection,
                    headers=dict(headers),
                    body_base64=base64.b64encode(body[:MOST_EVENT_BYTES]).decode(),
                    size=len(body),
                ),
                id=workflow_id(tenant, public),
                task_queue=event_queue(self._task_queue),
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={REJECTION: rejection},
                search_attributes=keywords(("Tenant",), (tenant,)),
                static_summary=f"{kind} by {via}: {reason}"[:_SUMMARY_LENGTH],
            )
        return public


def _attributes(tenant: str, event: CloudEvent, public: str) -> TypedSearchAttributes:
    run = (Pattern.EVENT, "", indexed(event.type), tenant)
    found_by = (indexed(event.source), correlation_of(event, public))
    return keywords((*RUN_ATTRIBUTES, *EVENT_ATTRIBUTES), (*run, *found_by))
