"""Runs that began under older code, or on another worker, go on under this one."""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from sevenfold.runtime.temporal.connection import build_plugin
from sevenfold.runtime.temporal.payloads import directory_storage
from sevenfold.worker import WORKFLOWS
from tests.record_histories import HISTORIES, SCENARIOS, recorded_stack, workflow_of
from tests.support.codec_keys import new_key, ring_of
from tests.support.stack import make_settings

SIGNALLED_DURING_LOCAL_ACTIVITY = {
    "event_dispatched_in_order",
    "event_cancelled_by_signal",
    "reaction_published",
    "reaction_failed",
    "ordering_semaphore",
}


def test_every_scenario_has_a_recorded_history() -> None:
    assert {path.stem for path in HISTORIES.glob("*.json")} == set(SCENARIOS)


def test_every_workflow_type_has_a_recorded_history() -> None:
    """CI replays the histories of every workflow that a worker runs."""
    recorded = {
        json.loads(path.read_text())["events"][0]["workflowExecutionStartedEventAttributes"]["workflowType"]["name"]
        for path in HISTORIES.glob("*.json")
    }
    # the SDK has no public way to a workflow's name
    registered = {str(workflow.__temporal_workflow_definition.name) for workflow in WORKFLOWS}
    assert registered == recorded


@pytest.mark.parametrize("name", SCENARIOS)
async def test_recorded_history_replays(tmp_path: Path, name: str) -> None:
    raw = (HISTORIES / f"{name}.json").read_text()
    # under its own id, of which those of its children are made
    started = json.loads(raw)["events"][0]["workflowExecutionStartedEventAttributes"]
    history = WorkflowHistory.from_json(started["workflowId"], raw)
    replayer = Replayer(workflows=WORKFLOWS, plugins=[build_plugin(directory_storage(make_settings(tmp_path)))])
    await replayer.replay_workflow(history)


async def test_recorded_histories_replay_with_codec_keys(tmp_path: Path) -> None:
    """Runs that started before there were keys go on."""
    plugin = build_plugin(directory_storage(make_settings(tmp_path)), keys=ring_of(new_key("one")))
    replayer = Replayer(workflows=WORKFLOWS, plugins=[plugin])
    for name in SCENARIOS:
        raw = (HISTORIES / f"{name}.json").read_text()
        started = json.loads(raw)["events"][0]["workflowExecutionStartedEventAttributes"]
        await replayer.replay_workflow(WorkflowHistory.from_json(started["workflowId"], raw))


async def test_replay_detects_a_changed_workflow(tmp_path: Path) -> None:
    raw = json.loads((HISTORIES / "synchronous_adopted.json").read_text())
    for event in raw["events"]:
        if event["eventType"] == "EVENT_TYPE_ACTIVITY_TASK_SCHEDULED":
            event["activityTaskScheduledEventAttributes"]["activityType"]["name"] = "another_activity"
    replayer = Replayer(workflows=WORKFLOWS, plugins=[build_plugin(directory_storage(make_settings(tmp_path)))])
    with pytest.raises(Exception, match=r"(?i)nondeterminism"):
        await replayer.replay_workflow(WorkflowHistory.from_json("default:changed", json.dumps(raw)))


async def test_every_scenario_survives_forced_replay(tmp_path: Path) -> None:
    """Without a cache each workflow task replays its run from the first event.

    One after the other, and without those that are signalled during a local activity: without a cache the SDK throws
    out runs whose local activity is still under way.
    """
    ended: dict[str, str] = {}
    async with recorded_stack(tmp_path, max_cached_workflows=0) as stack:
        for name, scenario in SCENARIOS.items():
            if name in SIGNALLED_DURING_LOCAL_ACTIVITY:
                continue
            handle = stack.temporal.get_workflow_handle(workflow_of(await scenario(stack)))
            status = (await handle.describe()).status
            assert status is not None
            ended[name] = status.name
    assert ended == {
        "synchronous_inline": "COMPLETED",
        "synchronous_adopted": "COMPLETED",
        "synchronous_retried": "COMPLETED",
        "synchronous_refused": "FAILED",
        "synchronous_deadline_exceeded": "FAILED",
        "synchronous_cancelled_by_signal": "CANCELED",
        "polling_done": "COMPLETED",
        "polling_cancelled_by_signal": "CANCELED",
        "polling_with_interaction": "COMPLETED",
        "interaction_event": "COMPLETED",
        "polling_with_reply": "COMPLETED",
        "run_reply": "COMPLETED",
        "queue_whole": "COMPLETED",
        "queue_items": "COMPLETED",
        "queue_too_many_failures": "FAILED",
        "queue_cancelled_by_signal": "CANCELED",
        "streaming_done": "COMPLETED",
        "streaming_retried": "COMPLETED",
        "streaming_answered": "COMPLETED",
        "streaming_refused": "FAILED",
        "stream_segment": "COMPLETED",
        "streaming_cancelled_by_signal": "CANCELED",
        "webhook_done": "COMPLETED",
        "webhook_adopted": "COMPLETED",
        "webhook_unreadable": "FAILED",
        "delivery_retried": "COMPLETED",
        "delivery_exhausted": "FAILED",
        "delivery_redelivered": "FAILED",
        "endpoint_failing": "COMPLETED",
        "event_dispatched": "COMPLETED",
        "event_refused": "FAILED",
        "event_rejected": "FAILED",
        "subscription_registry": "RUNNING",
        "usage_ledger": "RUNNING",
        "hybrid_short": "COMPLETED",
        "hybrid_long": "COMPLETED",
        "hybrid_streamed": "COMPLETED",
        "hybrid_cancelled_by_signal": "CANCELED",
        "payload_cleanup": "COMPLETED",
        "child_replied": "COMPLETED",
        "child_retried": "COMPLETED",
        "child_refused": "FAILED",
        "child_deadline_exceeded": "FAILED",
        "child_cancelled_by_signal": "CANCELED",
        "circuit": "COMPLETED",
        "limits": "RUNNING",
        "tenant_registry": "RUNNING",
        "tenant_erasure": "COMPLETED",
        "polling_with_updates": "COMPLETED",
        "queue_with_updates": "COMPLETED",
        "webhook_updates": "COMPLETED",
        "delivery_of_update": "COMPLETED",
        "webhook_endpoints": "RUNNING",
        "durable_steps": "COMPLETED",
        "asked_synchronously": "COMPLETED",
        "asked_in_a_stream": "COMPLETED",
        "asked_by_a_job": "COMPLETED",
        "asked_by_a_reaction": "COMPLETED",
        "asked_by_a_child": "COMPLETED",
        "asked_and_expired": "COMPLETED",
        "asked_and_cancelled": "CANCELED",
    }
