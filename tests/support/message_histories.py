"""Scenarios for tests/record_histories.py: runs that messages of brokers start, and runs whose end is an event."""

from typing import Any

from sevenfold.contracts.agents.interface import AgentRequest
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.event_driven import PublishEventsInput, event_task_queue
from sevenfold.contracts.identity import new_id
from sevenfold.contracts.runs.message_runs import ReplyAddress
from sevenfold.contracts.runs.run import RunInput
from tests.support.stack import Stack


async def _polled(stack: Stack, **terms: Any) -> str:
    """A run of pattern 5 with terms that no request has."""
    run_id, queue = new_id("task"), stack.settings.task_queue
    request = AgentRequest(run_id=run_id, task="answer", params={"n": 1})
    run = RunInput(agent="clerk", request=request, timeout=60, **terms)
    await stack.temporal.execute_workflow("Polling", run, id=f"default:{run_id}", task_queue=queue)
    return run_id


async def _answered_with_reply(stack: Stack) -> str:
    """A run as a message starts it; its outcome is an event for the routes."""
    queue = event_task_queue(stack.settings.task_queue)
    run_id = await _polled(stack, reply=ReplyAddress(broker="main", task_queue=queue, correlation_id="c-1"))
    await stack.temporal.get_workflow_handle(f"default:{run_id}/reply/1").result()
    return run_id


async def _reply(stack: Stack) -> str:
    return f"{await _answered_with_reply(stack)}/reply/1"


async def _interaction(stack: Stack) -> str:
    """A run whose end is published as an event."""
    return await _polled(stack, publish_interaction=True)


async def _late_interaction(stack: Stack) -> str:
    """The workflow that a run leaves such an event to if its tenant's rate of events is used up."""
    event = CloudEvent(specversion="1.0", id=new_id("task"), source="/runs", type="run.completed", data={"n": 1})
    run_id = f"{event.id}/event/{event.id}"
    publication = PublishEventsInput(tenant="default", events=[event])
    queue = stack.settings.task_queue
    await stack.temporal.execute_workflow("InteractionEvent", publication, id=f"default:{run_id}", task_queue=queue)
    return run_id


SCENARIOS = {
    "polling_with_interaction": _interaction,
    "interaction_event": _late_interaction,
    "polling_with_reply": _answered_with_reply,
    "run_reply": _reply,
}
