"""An event as the wire shows it, with what it caused, read from what Temporal knows."""

from datetime import datetime
from typing import Any

import structlog
from pydantic import Field
from temporalio.client import WorkflowExecution, WorkflowExecutionDescription

from sevenfold.adapters.events.stored import load_event, load_preview
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.run_outcomes import fetch_outcome, to_run_status
from sevenfold.api.dependencies import API_PREFIX, Gateway
from sevenfold.api.http.listing import find_execution
from sevenfold.api.http.problems import not_found
from sevenfold.api.runs.views import RunSummary
from sevenfold.api.runs.views import summarize_run as run_summary
from sevenfold.contracts.events import DISPATCH_MEMO, DispatchSummary, OutboundRoute, ReactionResult
from sevenfold.contracts.identity import build_workflow_id, is_public_id, parse_public_id
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs import ID_PREFIXES, Pattern, RunError, RunStatus

log = structlog.get_logger(__name__)

# So many events of a tree are read; the rest is named, and can be asked for by its own id.
_MAX_IN_A_TREE = 200


class EventLinks(Payload):
    """Where to go on from an event."""

    self: str
    replay: str
    temporal_ui: str | None


class EventSummary(Payload):
    """An event in a list. Data of more than 4 kB stands in the event on its own only."""

    id: str
    event: dict[str, Any]
    via: str
    status: RunStatus
    received_at: datetime
    closed_at: datetime | None
    unreadable: bool = Field(default=False, description="It cannot be shown here; see `links.temporalUi`.")
    links: EventLinks


class ReactionView(RunSummary):
    """A subscription's reaction, and the events that it published."""

    subscription: str
    error: RunError | None
    published: list["EventNode"]


class EventNode(Payload):
    """An event in a tree. `isComplete` is false where the tree was cut: ask for this event's own."""

    id: str
    event_id: str
    type: str
    status: RunStatus
    reactions: list[ReactionView]
    is_complete: bool = True


class EventDetail(EventSummary):
    """An event on its own, with all its data and what it caused."""

    error: RunError | None
    routes: list[OutboundRoute]
    reactions: list[ReactionView]


async def find_event(gateway: Gateway, tenant: str, event_id: str) -> WorkflowExecutionDescription:
    """What Temporal knows of an event now. Raises the problem of one that is not there."""
    if is_public_id(event_id) and event_id.startswith(f"{ID_PREFIXES[Pattern.EVENT]}_"):
        found = await find_execution(gateway, build_workflow_id(tenant, event_id))
        if found is not None:
            return found
    raise not_found("This event")


async def summarize_event(gateway: Gateway, tenant: str, execution: WorkflowExecution) -> EventSummary:
    """An event as far as visibility or a description tells it."""
    event_id = parse_public_id(execution.id)
    path = f"{API_PREFIX}/events/{event_id}"
    try:
        preview = await load_preview(execution)
        event, via, unreadable = preview.event.to_json(), preview.via, False
    except Exception as error:  # one that cannot be decoded must not hide all the others
        log.warning("an event cannot be shown", event_id=event_id, error=repr(error)[:500])
        event, via, unreadable = {}, "", True
    return EventSummary(
        id=event_id,
        event=event,
        via=via,
        unreadable=unreadable,
        status=to_run_status(execution),
        received_at=execution.start_time,
        closed_at=execution.close_time,
        links=EventLinks(self=path, replay=f"{path}/replay", temporal_ui=gateway.ui_link(tenant, event_id)),
    )


async def load_event_tree(gateway: Gateway, tenant: str, root: WorkflowExecutionDescription) -> EventDetail:
    """An event and all that followed from it."""
    tree = _TreeReader(gateway, tenant)
    summary = await summarize_event(gateway, tenant, root)
    dispatch = await _load_dispatch(root)
    error = (await fetch_outcome(gateway.client, root.id))[1] if summary.status is RunStatus.FAILED else None
    return EventDetail(
        **{**dict(summary), "event": (await load_event(gateway.client, root)).to_json()},
        error=error,
        routes=dispatch.routes,
        reactions=await tree.load_reactions(dispatch),
    )


async def _load_dispatch(execution: WorkflowExecution) -> DispatchSummary:
    """What an event called for; nothing until it was matched, which takes a moment."""
    dispatch: DispatchSummary = await execution.memo_value(
        DISPATCH_MEMO, DispatchSummary(), type_hint=DispatchSummary
    )
    return dispatch


class _TreeReader:
    """Reads on from event to event, for as long as there is room. A circle ends: no event is read twice."""

    def __init__(self, gateway: Gateway, tenant: str) -> None:
        self._gateway = gateway
        self._tenant = tenant
        self._read: set[str] = set()

    async def load_reactions(self, dispatch: DispatchSummary) -> list[ReactionView]:
        """Those that have begun, by subscription."""
        found = await gather_bounded(self._load_reaction, sorted(dispatch.reactions.items()))
        return [reaction for reaction in found if reaction is not None]

    async def _load_reaction(self, entry: tuple[str, str]) -> ReactionView | None:
        subscription, reaction = entry
        description = await find_execution(self._gateway, build_workflow_id(self._tenant, reaction))
        if description is None:
            return None  # it waits for its turn
        summary = run_summary(self._gateway, self._tenant, description)
        result, error = None, None
        if summary.status in (RunStatus.COMPLETED, RunStatus.FAILED):
            result, error = await fetch_outcome(self._gateway.client, description.id, ReactionResult)
        published = result.published if isinstance(result, ReactionResult) else []
        nodes = await gather_bounded(self._load_node, [(one.event_id, one.id, one.type) for one in published])
        return ReactionView(**dict(summary), subscription=subscription, error=error, published=nodes)

    async def _load_node(self, published: tuple[str, str, str]) -> EventNode:
        event_id, own_id, event_type = published
        known = {"id": event_id, "event_id": own_id, "type": event_type}
        description = await find_execution(self._gateway, build_workflow_id(self._tenant, event_id))
        status = to_run_status(description) if description else RunStatus.PROCESSING
        if description is None or event_id in self._read or len(self._read) >= _MAX_IN_A_TREE:
            return EventNode(**known, status=status, reactions=[], is_complete=False)
        self._read.add(event_id)
        return EventNode(
            **known, status=status, reactions=await self.load_reactions(await _load_dispatch(description))
        )
