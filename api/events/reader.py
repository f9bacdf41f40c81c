"""Reads events from Temporal, with the reactions and derived events that they caused."""

from dataclasses import dataclass

import structlog
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription

from sevenfold.adapters.events.stored import load_event, load_preview
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.find_execution import find_execution
from sevenfold.adapters.temporal.run_outcomes import fetch_outcome, to_run_status
from sevenfold.api.dependencies import API_PREFIX, TemporalUi
from sevenfold.api.events.views import EventDetail, EventLinks, EventNode, EventSummary, ReactionView
from sevenfold.api.http.problems import not_found
from sevenfold.api.runs.views import summarize_run
from sevenfold.contracts.events.event_driven import DISPATCH_MEMO, DispatchSummary, ReactionResult
from sevenfold.contracts.identity import build_workflow_id, is_public_id, parse_public_id, parse_tenant
from sevenfold.contracts.runs.run import ID_PREFIXES, Pattern, RunStatus

log = structlog.get_logger(__name__)

# Maximum of events in a tree; the others are named, and can be read by their ids.
_MAX_TREE_EVENTS = 200


@dataclass(frozen=True)
class EventReader:
    """Finds events and builds what the API shows of them."""

    client: Client
    ui: TemporalUi

    async def find(self, tenant: str, event_id: str) -> WorkflowExecutionDescription:
        """Describes an event. Raises 404 if there is none with this id."""
        if is_public_id(event_id) and event_id.startswith(f"{ID_PREFIXES[Pattern.EVENT]}_"):
            found = await find_execution(self.client, build_workflow_id(tenant, event_id))
            if found is not None:
                return found
        raise not_found("This event")

    async def refresh(self, execution: WorkflowExecution) -> EventSummary:
        """Returns a listed event. Visibility lags, so an open one is described again."""
        if execution.close_time is None:
            execution = await find_execution(self.client, execution.id) or execution
        return await self.summarize(execution)

    async def summarize(self, execution: WorkflowExecution) -> EventSummary:
        """Returns an event as far as visibility or a description shows it."""
        tenant, event_id = parse_tenant(execution.id), parse_public_id(execution.id)
        path = f"{API_PREFIX}/events/{event_id}"
        try:
            preview = await load_preview(execution)
            event, via, unreadable = preview.event.to_json(), preview.via, False
        except Exception as error:  # one event that cannot be decoded must not hide the whole page
            log.warning("event cannot be decoded", event_id=event_id, error=type(error).__name__)
            event, via, unreadable = {}, "", True
        return EventSummary(
            id=event_id,
            tenant=tenant,
            event=event,
            via=via,
            unreadable=unreadable,
            status=to_run_status(execution),
            received_at=execution.start_time,
            closed_at=execution.close_time,
            links=EventLinks(self=path, replay=f"{path}/replay", temporal_ui=self.ui.link(tenant, event_id)),
        )

    async def load_tree(self, root: WorkflowExecutionDescription) -> EventDetail:
        """Returns an event with everything that it caused."""
        tree = _TreeReader(self.client, self.ui, parse_tenant(root.id))
        summary = await self.summarize(root)
        dispatch = await _load_dispatch(root)
        error = (await fetch_outcome(self.client, root.id))[1] if summary.status is RunStatus.FAILED else None
        return EventDetail(
            **{**dict(summary), "event": (await load_event(self.client, root)).to_json()},
            error=error,
            routes=dispatch.routes,
            reactions=await tree.load_reactions(dispatch),
        )


async def _load_dispatch(execution: WorkflowExecution) -> DispatchSummary:
    """Returns the reactions and routes of an event; none until it was matched, a moment after it was accepted."""
    dispatch: DispatchSummary = await execution.memo_value(
        DISPATCH_MEMO, DispatchSummary(), type_hint=DispatchSummary
    )
    return dispatch


class _TreeReader:
    """Reads from event to event, up to a maximum of events. It reads no event twice, so a cycle ends."""

    def __init__(self, client: Client, ui: TemporalUi, tenant: str) -> None:
        self._client = client
        self._ui = ui
        self._tenant = tenant
        self._read: set[str] = set()

    async def load_reactions(self, dispatch: DispatchSummary) -> list[ReactionView]:
        """Returns the reactions that have started, by subscription."""
        found = await gather_bounded(self._load_reaction, sorted(dispatch.reactions.items()))
        return [reaction for reaction in found if reaction is not None]

    async def _load_reaction(self, entry: tuple[str, str]) -> ReactionView | None:
        subscription, reaction = entry
        description = await find_execution(self._client, build_workflow_id(self._tenant, reaction))
        if description is None:
            return None  # it still waits in the queue of its ordering key
        summary = summarize_run(self._ui, description)
        result, error = None, None
        if summary.status in (RunStatus.COMPLETED, RunStatus.FAILED):
            result, error = await fetch_outcome(self._client, description.id, ReactionResult)
        published = result.published if isinstance(result, ReactionResult) else []
        nodes = await gather_bounded(self._load_node, [(one.event_id, one.id, one.type) for one in published])
        return ReactionView(**dict(summary), subscription=subscription, error=error, published=nodes)

    async def _load_node(self, published: tuple[str, str, str]) -> EventNode:
        event_id, own_id, event_type = published
        known = {"id": event_id, "event_id": own_id, "type": event_type}
        description = await find_execution(self._client, build_workflow_id(self._tenant, event_id))
        status = to_run_status(description) if description else RunStatus.PROCESSING
        if description is None or event_id in self._read or len(self._read) >= _MAX_TREE_EVENTS:
            return EventNode(**known, status=status, reactions=[], is_complete=False)
        self._read.add(event_id)
        return EventNode(
            **known, status=status, reactions=await self.load_reactions(await _load_dispatch(description))
        )
