"""Publishes the end of a run as an event, for analytics and for subscriptions."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from sevenfold.activities.events.publish import EventPublication
from sevenfold.contracts.agents.questions import Question
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.event_driven import PublishEventsInput
from sevenfold.contracts.events.sources import INPUT_REQUIRED_TYPE, INTERACTION_TYPE_PREFIX, RUNS_SOURCE
from sevenfold.contracts.identity import parse_public_id, parse_tenant
from sevenfold.contracts.runs.run import WORKFLOW_TYPES, RunInput, RunStatus
from sevenfold.workflows.runs.detached_child import start_detached_child
from sevenfold.workflows.runs.interaction_event import InteractionEvent

# A client waits for the run. What is not published by then, because Temporal or the tenant's rate of events does not
# permit it, is left to a workflow of its own.
_PUBLISH_TIMEOUT = timedelta(seconds=2)
_PATTERN_OF_TYPE = {workflow_type: pattern for pattern, workflow_type in WORKFLOW_TYPES.items()}


async def publish_input_required(run: RunInput, turn: int, questions: Sequence[Question]) -> None:
    """Publishes that the run's agent asks people, if interactions are published. What it asks is left out."""
    if not run.publish_interaction:
        return
    info = workflow.info()
    run_id = run.request.run_id if run.generation == 1 else f"{run.request.run_id}-{run.generation}"
    pattern = _PATTERN_OF_TYPE[info.workflow_type]
    data: dict[str, Any] = {
        "runId": run.request.run_id,
        "pattern": pattern,
        "agent": run.agent,
        "task": run.request.task,
        "status": RunStatus.INPUT_REQUIRED,
        "questions": [one.id for one in questions],
        "expiresAt": min(one.expires_at for one in questions).isoformat(),
        "metadata": run.request.metadata,
    }
    await _publish(f"{run_id}-turn-{turn}", INPUT_REQUIRED_TYPE, pattern, data)


async def publish_interaction(run: RunInput, error: BaseException | None) -> None:
    """Publishes the run's status, duration and error code, if interactions are published. Query and answer are left
    out.
    """
    if not run.publish_interaction:
        return
    info = workflow.info()
    pattern = _PATTERN_OF_TYPE[info.workflow_type]
    status = RunStatus.COMPLETED
    if error is not None:
        status = RunStatus.CANCELLED if is_cancelled_exception(error) else RunStatus.FAILED
    data: dict[str, Any] = {
        "runId": run.request.run_id,
        "pattern": pattern,
        "agent": run.agent,
        "task": run.request.task,
        "status": status,
        "seconds": round((workflow.now() - info.workflow_start_time).total_seconds(), 3),
        "metadata": run.request.metadata,
    }
    if isinstance(error, ApplicationError) and status is RunStatus.FAILED:
        data["code"] = error.type
    event_id = run.request.run_id if run.generation == 1 else f"{run.request.run_id}-{run.generation}"
    await _publish(event_id, f"{INTERACTION_TYPE_PREFIX}{status}", pattern, data)


async def _publish(event_id: str, event_type: str, pattern: str, data: dict[str, Any]) -> None:
    """Publishes the event, or starts the workflow that does it later. A cancellation is raised."""
    event = CloudEvent(
        specversion="1.0",
        id=event_id,
        source=RUNS_SOURCE,
        type=event_type,
        subject=pattern,
        time=workflow.now(),
        datacontenttype="application/json",
        data=data,
    )
    publication = PublishEventsInput(tenant=parse_tenant(workflow.info().workflow_id), events=[event])
    try:
        await workflow.execute_local_activity_method(
            EventPublication.publish_events,
            publication,
            schedule_to_close_timeout=_PUBLISH_TIMEOUT,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
    except FailureError as failure:
        if is_cancelled_exception(failure):
            raise
        run_workflow_id = workflow.info().workflow_id
        await start_detached_child(
            InteractionEvent.run,
            publication,
            workflow_id=f"{run_workflow_id}/event/{event_id}",
            summary=f"{event_type} of {parse_public_id(run_workflow_id)}",
            memo={"run": run_workflow_id},
        )
