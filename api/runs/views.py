"""A run as the wire shows it, read from what Temporal knows."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import WorkflowExecution, WorkflowExecutionDescription
from temporalio.common import SearchAttributeKey

from sevenfold.adapters.temporal.run_outcomes import fetch_outcome, is_cancel_requested, to_run_status
from sevenfold.api.dependencies import API_PREFIX, Gateway
from sevenfold.api.http.listing import find_execution
from sevenfold.api.http.problems import not_found
from sevenfold.api.runs.job_items import count_items
from sevenfold.api.webhooks.views import RunWebhook, load_run_webhook
from sevenfold.contracts.agent import Progress
from sevenfold.contracts.answers import Answer
from sevenfold.contracts.calls import CallHeartbeat
from sevenfold.contracts.identity import build_workflow_id, is_public_id, parse_public_id
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.runs import (
    DEADLINE_GRACE,
    DEADLINE_MEMO,
    GENERATION_MEMO,
    ID_PREFIXES,
    PROGRESS_MEMO,
    WORKFLOW_TYPES,
    Pattern,
    RunError,
    RunResult,
    RunStatus,
)
from sevenfold.contracts.verdicts import ErrorCode
from sevenfold.contracts.webhooks import WEBHOOK_MEMO

PATTERN_OF_TYPE = {workflow_type: pattern for pattern, workflow_type in WORKFLOW_TYPES.items()}
_RUN_PREFIXES = frozenset(ID_PREFIXES.values())
AGENT = SearchAttributeKey.for_keyword("Agent")
TASK = SearchAttributeKey.for_keyword("Task")


class RunLinks(Payload):
    """Where to go on from a run: paths of this API, and the run's page in the Temporal UI if its address is known."""

    self: str
    stream: str
    cancel: str
    temporal_ui: str | None


class RunSummary(Payload):
    """A run in a list."""

    id: str
    pattern: Pattern
    agent: str
    task: str
    status: RunStatus
    created_at: datetime
    closed_at: datetime | None
    links: RunLinks


class Waiting(Payload):
    """Why the agent is not being asked at the moment, and when it will be again."""

    reason: str
    until: datetime | None


class Run(RunSummary):
    """A run on its own, as it is now."""

    progress: Progress | None = Field(description="As the agent last told it; null when it tells none.")
    attempt: int = Field(description="The attempt of the agent call, from 1.")
    waiting: Waiting | None = Field(description="For a run that is to be tried again; null for one at work.")
    cancel_requested: bool = Field(description="It was asked to stop; one without a worker stops once there is one.")
    metadata: JsonObject
    result: Answer | None
    error: RunError | None
    webhook: RunWebhook | None = Field(description="How far its delivery is; null for a run without a webhook.")


def run_links(gateway: Gateway, tenant: str, run_id: str) -> RunLinks:
    """A run's links."""
    path = f"{API_PREFIX}/runs/{run_id}"
    return RunLinks(
        self=path, stream=f"{path}/stream", cancel=f"{path}/cancel", temporal_ui=gateway.ui_link(tenant, run_id)
    )


def summarize_run(gateway: Gateway, tenant: str, execution: WorkflowExecution) -> RunSummary:
    """A run as far as visibility or a description tells it."""
    run_id = parse_public_id(execution.id)
    attributes = execution.typed_search_attributes
    return RunSummary(
        id=run_id,
        pattern=PATTERN_OF_TYPE[execution.workflow_type],
        agent=attributes.get(AGENT, ""),
        task=attributes.get(TASK, ""),
        status=to_run_status(execution),
        created_at=execution.start_time,
        closed_at=execution.close_time,
        links=run_links(gateway, tenant, run_id),
    )


async def load_run(gateway: Gateway, tenant: str, description: WorkflowExecutionDescription) -> Run:
    """A run with its progress, result or error."""
    summary = summarize_run(gateway, tenant, description)
    progress, attempt = await _load_call_progress(gateway, description)
    memo = await description.memo()
    if PROGRESS_MEMO in memo and summary.status is RunStatus.PROCESSING:
        progress = Progress.model_validate(memo[PROGRESS_MEMO])
    if "total" in memo:
        progress = await _load_items_progress(gateway, description, memo["total"])
    result: RunResult | None = None
    error = find_overdue_error(memo, description)
    if error is not None:
        summary = summary.model_copy(update={"status": RunStatus.FAILED})
    elif summary.status in (RunStatus.COMPLETED, RunStatus.FAILED):
        result, error = await fetch_outcome(gateway.client, description.id)
    return Run(
        **dict(summary),
        progress=progress,
        attempt=result.attempts if result else error.attempts if error else attempt,
        waiting=await _load_waiting(gateway, summary.status, description),
        cancel_requested=is_cancel_requested(description),
        metadata=memo.get("metadata", {}),
        result=Answer.from_result(result) if result else None,
        error=error,
        webhook=await load_run_webhook(gateway, description.id, memo.get(GENERATION_MEMO, 1))
        if WEBHOOK_MEMO in memo
        else None,
    )


async def _load_call_progress(
    gateway: Gateway, description: WorkflowExecutionDescription
) -> tuple[Progress | None, int]:
    """What the running agent call last told by heartbeat; no query, no history event."""
    for activity in description.raw_description.pending_activities:
        if activity.activity_type.name != "call_agent":
            continue
        last = CallHeartbeat()
        if payloads := activity.heartbeat_details.payloads:
            (last,) = await gateway.client.data_converter.decode(payloads, [CallHeartbeat])
        working = activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
        return (last.progress if working else None), max(1, activity.attempt - last.skipped_attempts)
    return None, 1


def find_overdue_error(memo: Mapping[str, Any], description: WorkflowExecutionDescription) -> RunError | None:
    """Why a run that is still open counts as failed: its deadline is over, and no worker was there to end it. It will
    end so, whatever its agent may still answer.
    """
    if description.close_time is not None or DEADLINE_MEMO not in memo:
        return None
    deadline = datetime.fromisoformat(memo[DEADLINE_MEMO])
    if datetime.now(UTC) <= deadline + DEADLINE_GRACE:
        return None
    detail = f"The run had no answer when its time was over, at {deadline:%Y-%m-%dT%H:%M:%SZ}."
    return RunError(code=ErrorCode.DEADLINE_EXCEEDED, detail=detail)


async def _load_waiting(
    gateway: Gateway, status: RunStatus, description: WorkflowExecutionDescription
) -> Waiting | None:
    if status is RunStatus.QUEUED and not await gateway.pollers.is_polled(description.task_queue):
        reason = f"No worker polls the task queue {description.task_queue}; start one with `sevenfold worker`."
        return Waiting(reason=reason, until=None)
    for activity in description.raw_description.pending_activities:
        if activity.activity_type.name not in ("call_agent", "process_chunk"):
            continue
        if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED:
            return Waiting(reason=f"An operator has paused the activity {activity.activity_id}.", until=None)
        if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED and activity.last_failure.message:
            due = activity.next_attempt_schedule_time if activity.HasField("next_attempt_schedule_time") else None
            until = due.ToDatetime(UTC) if due else None
            return Waiting(reason=activity.last_failure.message, until=until)
    return None


async def _load_items_progress(
    gateway: Gateway, description: WorkflowExecutionDescription, total: int
) -> Progress | None:
    if description.close_time is not None:
        return None
    ended = await count_items(gateway, description)
    done = ended.completed + ended.failed
    return Progress(percent=100 * done / total, note=f"{done} of {total} items")


async def find_run(gateway: Gateway, tenant: str, run_id: str) -> WorkflowExecutionDescription:
    """What Temporal knows of a run now. Raises the problem of one that is not there."""
    if is_public_id(run_id) and run_id.partition("_")[0] in _RUN_PREFIXES:
        found = await find_execution(gateway, build_workflow_id(tenant, run_id))
        if found is not None and found.workflow_type in PATTERN_OF_TYPE:
            return found
    raise not_found("This run")
