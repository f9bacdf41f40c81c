"""Scenarios of runs that messages of brokers start, for tests/record_histories.py."""

from sevenfold.contracts.agents.interface import AgentRequest
from sevenfold.contracts.events.event_driven import event_task_queue
from sevenfold.contracts.identity import new_id
from sevenfold.contracts.runs.message_runs import ReplyAddress
from sevenfold.contracts.runs.run import RunInput
from tests.support.stack import Stack


async def _answered_with_reply(stack: Stack) -> str:
    """A run as a message starts it; its outcome is an event for the routes."""
    run_id = new_id("task")
    queue = stack.settings.task_queue
    run = RunInput(
        agent="clerk",
        request=AgentRequest(run_id=run_id, task="answer", params={"n": 1}),
        timeout=60,
        reply=ReplyAddress(broker="main", task_queue=event_task_queue(queue), correlation_id="c-1"),
    )
    handle = await stack.temporal.start_workflow("Polling", run, id=f"default:{run_id}", task_queue=queue)
    await handle.result()
    await stack.temporal.get_workflow_handle(f"default:{run_id}/reply/1").result()
    return run_id


async def _reply(stack: Stack) -> str:
    return f"{await _answered_with_reply(stack)}/reply/1"


SCENARIOS = {"polling_with_reply": _answered_with_reply, "run_reply": _reply}
