"""Events as their workflows hold them."""

from temporalio.client import Client, WorkflowExecution

from adapters.run_outcomes import begun_with
from contracts.cloudevents import CloudEvent
from contracts.events import EVENT, EventHead, EventInput


async def head_of(execution: WorkflowExecution) -> EventHead:
    """What its memo holds of the event."""
    head: EventHead = await execution.memo_value(EVENT, type_hint=EventHead)
    return head


async def whole_event(client: Client, execution: WorkflowExecution) -> CloudEvent:
    """The event with its data."""
    head = await head_of(execution)
    return head.event if head.whole else (await begun_with(client, execution, EventInput)).event
