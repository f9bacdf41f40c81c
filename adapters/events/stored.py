"""Reads events from their workflows."""

from temporalio.client import Client, WorkflowExecution

from sevenfold.adapters.temporal.run_outcomes import fetch_input
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.event_driven import EVENT_MEMO, EventInput, EventPreview


async def load_preview(execution: WorkflowExecution) -> EventPreview:
    """Returns the event's preview from the memo."""
    preview: EventPreview = await execution.memo_value(EVENT_MEMO, type_hint=EventPreview)
    return preview


async def load_event(client: Client, execution: WorkflowExecution) -> CloudEvent:
    """Returns the event with its data."""
    preview = await load_preview(execution)
    return preview.event if preview.is_complete else (await fetch_input(client, execution, EventInput)).event
