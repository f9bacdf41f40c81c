"""Publishes the end of a run as an event, for analytics and for subscriptions."""

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from sevenfold.activities.events.publish import EventPublication
from sevenfold.contracts.cloudevents import CloudEvent
from sevenfold.contracts.event_sources import INTERACTION_TYPE_PREFIX, RUNS_SOURCE
from sevenfold.contracts.events import PublishEventsInput
from sevenfold.contracts.identity import parse_tenant
from sevenfold.contracts.runs import WORKFLOW_TYPES, RunInput, RunStatus

_PUBLISH_TIMEOUT = timedelta(minutes=10)
_PATTERN_OF_TYPE = {workflow_type: pattern for pattern, workflow_type in WORKFLOW_TYPES.items()}


async def publish_interaction(run: RunInput, error: BaseException | None) -> None:
    """Publishes the run's status, duration and error code, if interactions are published. Query and answer are left
    out.

    A failure is logged and does not fail the run; a cancellation is raised.
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
    event = CloudEvent(
        specversion="1.0",
        id=run.request.run_id if run.generation == 1 else f"{run.request.run_id}-{run.generation}",
        source=RUNS_SOURCE,
        type=f"{INTERACTION_TYPE_PREFIX}{status}",
        subject=pattern,
        time=workflow.now(),
        datacontenttype="application/json",
        data=data,
    )
    try:
        await workflow.execute_local_activity_method(
            EventPublication.publish_events,
            PublishEventsInput(tenant=parse_tenant(info.workflow_id), events=[event]),
            start_to_close_timeout=timedelta(seconds=30),
            schedule_to_close_timeout=_PUBLISH_TIMEOUT,
            retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
        )
    except FailureError as failure:
        if is_cancelled_exception(failure):
            raise
        # A run ends even if its event cannot be published.
        workflow.logger.warning("publishing the interaction event failed", exc_info=failure)
