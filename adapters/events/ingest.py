"""Event ingest: accepts the events that come by HTTP, from a broker or from an agent."""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from temporalio.client import Client
from temporalio.common import (
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.events.fifo_gate import FifoGate, Ticket
from sevenfold.adapters.events.matching import find_matching
from sevenfold.adapters.events.ordering import acquire_semaphore, ordering_semaphore
from sevenfold.adapters.events.subscription_cache import SubscriptionCache
from sevenfold.adapters.metrics.events import count_event, count_rejected
from sevenfold.adapters.quotas.rates import RateQuotas
from sevenfold.adapters.quotas.stored_bytes import StoredBytes
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.search_attributes import keyword_attributes
from sevenfold.adapters.tracing import new_trace
from sevenfold.contracts import workflow_types
from sevenfold.contracts.events.cloudevents import MAX_EVENT_BYTES, CloudEvent
from sevenfold.contracts.events.event_driven import (
    EVENT_MEMO,
    REJECTED_ID_PREFIX,
    REJECTION_MEMO,
    VIA_DERIVED,
    AcceptOutcome,
    EventInput,
    EventPreview,
    OutboundRoute,
    RejectedEventInput,
    Rejection,
    SemaphoreRequest,
    build_event_id,
    build_reaction_id,
    event_task_queue,
    find_correlation_id,
    to_keyword,
)
from sevenfold.contracts.events.sources import RUNS_SOURCE
from sevenfold.contracts.events.subscriptions import Subscription
from sevenfold.contracts.identity import build_workflow_id, derive_id
from sevenfold.contracts.runs.run import EVENT_ATTRIBUTES, RUN_ATTRIBUTES, WORKFLOW_TYPES, Pattern

_SUMMARY_LENGTH = 160


@dataclass(frozen=True)
class AcceptedEvent:
    """An event's public id and the outcome of its acceptance."""

    event_id: str
    outcome: AcceptOutcome


@dataclass(frozen=True)
class Admission:
    """A prepared acceptance of events. `execute` is called while the ticket is held, and may be repeated until it
    succeeds: events acquire their ordering semaphores before they count as accepted, so the order of acceptance is
    the order of reactions.
    """

    ticket: Ticket
    execute: Callable[[], Awaitable[list[AcceptedEvent]]]


class EventIngest:
    """An event is one workflow whose id is derived from tenant, source and event id, so Temporal detects
    duplicates.
    """

    def __init__(
        self,
        client: Client,
        task_queue: str,
        subscriptions: SubscriptionCache,
        access: AccessDirectory,
        rates: RateQuotas,
        stored_bytes: StoredBytes,
    ) -> None:
        self._client = client
        self._task_queue = task_queue
        self.subscriptions = subscriptions
        self._access = access
        self._rates = rates
        self._stored_bytes = stored_bytes
        self._gate = FifoGate()

    async def accept(
        self,
        tenant: str,
        event: CloudEvent,
        via: str,
        key_id: str | None = None,
        traceparent: str = "",
        reply_route: OutboundRoute | None = None,
    ) -> AcceptedEvent:
        """Returns when Temporal has the event, and when the event has requested its ordering semaphores. `key_id`:
        the key that published it; `traceparent`: of its request; `reply_route`: where a reply goes.

        Raises RPCError if that is unknown: accept it again then. Raises TenantErasingError and QuotaExceededError.
        """
        return (await self.accept_all(tenant, [event], via, key_id, traceparent, reply_route))[0]

    async def accept_all(
        self,
        tenant: str,
        events: Sequence[CloudEvent],
        via: str,
        key_id: str | None = None,
        traceparent: str = "",
        reply_route: OutboundRoute | None = None,
    ) -> list[AcceptedEvent]:
        """Accepts several events; they request their ordering semaphores in the given order. Raises as `accept`
        does.
        """
        admission = await self.prepare(tenant, events, via, key_id, traceparent, reply_route)
        async with admission.ticket:
            return await admission.execute()

    async def prepare(
        self,
        tenant: str,
        events: Sequence[CloudEvent],
        via: str,
        key_id: str | None = None,
        traceparent: str = "",
        reply_route: OutboundRoute | None = None,
    ) -> "Admission":
        """Prepares the acceptance of events. This takes their places in the order of their keys, so the returned
        ticket must be entered and left. Raises RPCError, TenantErasingError while the tenant is erased, and
        QuotaExceededError.
        """
        await self._access.check_not_erasing(tenant)
        subscriptions = await self.subscriptions.list_for(tenant)
        matching = [(event, find_matching(subscriptions, event)) for event in events]
        count = sum(1 + len(found) for _, found in matching)
        owners = self._access.latest.quota_owners(tenant, key_id)
        await self._stored_bytes.check(owners)
        await self._rates.admit_events(owners, count)
        by_semaphore: dict[str, list[SemaphoreRequest]] = defaultdict(list)
        for event, found in matching:
            for request in _semaphore_requests(tenant, event, found):
                by_semaphore[request.semaphore.id].append(request)

        trace = traceparent or str(new_trace())

        async def start(event: CloudEvent) -> AcceptedEvent:
            event_input = EventInput(event=event, via=via, traceparent=trace, reply_route=reply_route)
            return await self._start_event(tenant, event_input)

        async def execute() -> list[AcceptedEvent]:
            accepted = await gather_bounded(start, events)
            await gather_bounded(partial(acquire_semaphore, self._client, self._task_queue), by_semaphore.values())
            return accepted

        return Admission(self._gate.enqueue(by_semaphore), execute)

    async def _start_event(self, tenant: str, event_input: EventInput) -> AcceptedEvent:
        accepted = await self._start_or_compare(tenant, event_input)
        count_event(event_input.via, accepted.outcome)
        return accepted

    async def _start_or_compare(self, tenant: str, event_input: EventInput) -> AcceptedEvent:
        event = event_input.event
        public_id = build_event_id(tenant, event.source, event.id)
        preview = EventPreview.from_input(event_input)
        try:
            await self._client.start_workflow(
                WORKFLOW_TYPES[Pattern.EVENT],
                event_input,
                id=build_workflow_id(tenant, public_id),
                task_queue=event_task_queue(self._task_queue),
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={EVENT_MEMO: preview},
                search_attributes=_search_attributes(tenant, event, public_id),
                static_summary=f"{event.type} from {event.source}"[:_SUMMARY_LENGTH],
                request_eager_start=True,
            )
        except WorkflowAlreadyStartedError:
            return AcceptedEvent(public_id, await self._compare_with_stored(tenant, public_id, preview))
        return AcceptedEvent(public_id, AcceptOutcome.ACCEPTED)

    async def _compare_with_stored(self, tenant: str, public_id: str, preview: EventPreview) -> AcceptOutcome:
        description = await self._client.get_workflow_handle(build_workflow_id(tenant, public_id)).describe()
        stored: EventPreview = await description.memo_value(EVENT_MEMO, type_hint=EventPreview)
        # A workflow task that is done again publishes the same interaction with another time.
        is_interaction = preview.via == VIA_DERIVED and preview.event.source == RUNS_SOURCE
        if is_interaction or stored.content_hash == preview.content_hash:
            return AcceptOutcome.DUPLICATE
        reason = (
            f"A different event with this source and id was accepted before, as {public_id}. Producers "
            "must give every event a unique id."
        )
        body = preview.event.model_dump_json(exclude_none=True).encode()
        await self.reject(tenant, "conflict", reason, preview.via, {}, body)
        return AcceptOutcome.CONFLICT

    async def reject(
        self, tenant: str, kind: str, reason: str, via: str, headers: Mapping[str, str], body: bytes
    ) -> str:
        """Stores a message that is not an event as a dead letter, and returns its public id. A repeated message is
        the same dead letter.
        """
        rejection = Rejection(kind=kind, reason=reason, via=via, at=datetime.now(UTC))
        digest = hashlib.sha256(repr(sorted(headers.items())).encode() + body).hexdigest()
        public_id = derive_id(REJECTED_ID_PREFIX, tenant, f"{kind}:{via}", digest)
        with suppress(WorkflowAlreadyStartedError):
            await self._client.start_workflow(
                workflow_types.REJECTED_EVENT,
                RejectedEventInput(
                    rejection=rejection,
                    headers=dict(headers),
                    body_base64=base64.b64encode(body[:MAX_EVENT_BYTES]).decode(),
                    size=len(body),
                ),
                id=build_workflow_id(tenant, public_id),
                task_queue=event_task_queue(self._task_queue),
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={REJECTION_MEMO: rejection},
                search_attributes=keyword_attributes(("Tenant",), (tenant,)),
                static_summary=f"{kind} by {via}: {reason}"[:_SUMMARY_LENGTH],
            )
            count_rejected(via, kind)
        return public_id


def _semaphore_requests(tenant: str, event: CloudEvent, matching: Iterable[Subscription]) -> list[SemaphoreRequest]:
    public_id = build_event_id(tenant, event.source, event.id)
    requests = []
    for subscription in matching:
        semaphore = ordering_semaphore(tenant, subscription, event)
        if semaphore is not None:
            reaction = build_workflow_id(tenant, build_reaction_id(tenant, public_id, subscription.name))
            requests.append(
                SemaphoreRequest(
                    semaphore=semaphore,
                    event_workflow_id=build_workflow_id(tenant, public_id),
                    reaction_workflow_id=reaction,
                )
            )
    return requests


def _search_attributes(tenant: str, event: CloudEvent, public_id: str) -> TypedSearchAttributes:
    run = (Pattern.EVENT, "", to_keyword(event.type), tenant)
    found_by = (to_keyword(event.source), find_correlation_id(event, public_id))
    return keyword_attributes((*RUN_ATTRIBUTES, *EVENT_ATTRIBUTES), (*run, *found_by))
