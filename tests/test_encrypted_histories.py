"""With codec keys, no history, memo or description of any workflow holds a clear payload or failure."""

import asyncio
from pathlib import Path

from temporalio.api.history.v1 import HistoryEvent

from sevenfold.contracts.identity import is_clear_child
from tests.record_histories import SCENARIOS, recorded_stack, workflow_of
from tests.support.codec_keys import key_setting, new_key
from tests.support.raw_store import clear_parts, raw_histories

# The first because the other webhooks go to the same host; the others share a tenant.
ALONE = ("endpoint_failing", "tenant_registry", "tenant_erasure")


async def test_every_path_of_every_workflow_is_encrypted(tmp_path: Path) -> None:
    async with recorded_stack(tmp_path, codec_keys=key_setting(new_key("one"))) as stack:
        started = [await SCENARIOS[name](stack) for name in ALONE]
        started += await asyncio.gather(*(run(stack) for name, run in SCENARIOS.items() if name not in ALONE))
        await asyncio.sleep(2)  # visibility lags
        found: dict[str, list[str]] = {}
        types: set[str] = set()
        async for workflow_id, events, _ in raw_histories(stack.temporal):
            started_event = events[0].workflow_execution_started_event_attributes
            types.add(started_event.workflow_type.name)
            if not is_clear_child(workflow_id):
                found[workflow_id] = [part for event in events for part in clear_parts_of(event)]
    assert {workflow_of(run_id) for run_id in started} <= found.keys(), "all were read"
    assert len(types) > 12
    assert {workflow_id: parts for workflow_id, parts in found.items() if parts} == {}


def clear_parts_of(event: HistoryEvent) -> list[str]:
    """The clear parts of an event, without what goes to and comes from the clear children of a workflow agent."""
    initiated = event.start_child_workflow_execution_initiated_event_attributes
    ended = (
        event.child_workflow_execution_completed_event_attributes,
        event.child_workflow_execution_failed_event_attributes,
        event.child_workflow_execution_canceled_event_attributes,
    )
    children = {initiated.workflow_id, *(one.workflow_execution.workflow_id for one in ended)} - {""}
    is_of_child = event.workflow_execution_signaled_event_attributes.signal_name in ("progress", "ask")
    answered = event.signal_external_workflow_execution_initiated_event_attributes
    if (
        is_of_child
        or is_clear_child(answered.workflow_execution.workflow_id)
        or any(is_clear_child(child) for child in children)
    ):
        return []
    return list(clear_parts(event, str(event.event_id)))
