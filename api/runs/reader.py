"""Reads runs from Temporal: descriptions, memos and heartbeats; the result only once a run has ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from structlog.contextvars import bind_contextvars
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
)

from sevenfold.adapters.temporal.encoded import ActivityState, memo_names, pending_activities
from sevenfold.adapters.temporal.find_execution import find_execution
from sevenfold.adapters.temporal.pollers import WorkerPollers
from sevenfold.adapters.temporal.run_outcomes import fetch_outcome, is_cancel_requested
from sevenfold.adapters.temporal.step_store import read_steps
from sevenfold.api.dependencies import TemporalUi
from sevenfold.api.http.problems import not_found
from sevenfold.api.runs.approval_desk import ApprovalDesk, InputRequest
from sevenfold.api.runs.job_items import count_items
from sevenfold.api.runs.views import PATTERN_OF_TYPE, Run, RunLinks, RunSummary, run_links, summarize_run
from sevenfold.api.webhooks.views import load_run_webhook
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.interface import Progress
from sevenfold.contracts.agents.steps import STEPS_MEMO, RunningStep, StepView, view_steps
from sevenfold.contracts.identity import build_workflow_id, is_public_id, parse_public_id, parse_tenant
from sevenfold.contracts.runs.calls import CallHeartbeat
from sevenfold.contracts.runs.outcomes import RunAnswer
from sevenfold.contracts.runs.run import (
    DEADLINE_GRACE,
    DEADLINE_MEMO,
    GENERATION_MEMO,
    ID_PREFIXES,
    PROGRESS_MEMO,
    TOTAL_MEMO,
    WAITING_MEMO,
    RunError,
    RunResult,
    RunStatus,
    Waiting,
)
from sevenfold.contracts.tracing import TRACE_MEMO
from sevenfold.contracts.webhooks.delivery import WEBHOOK_MEMO

_RUN_PREFIXES = frozenset(ID_PREFIXES.values())


@dataclass(frozen=True)
class RunReader:
    """Finds runs and builds what the API shows of them."""

    client: Client
    pollers: WorkerPollers
    ui: TemporalUi
    desk: ApprovalDesk

    def links(self, tenant: str, run_id: str) -> RunLinks:
        """Returns a run's links."""
        return run_links(self.ui, tenant, run_id)

    async def find(self, tenant: str, run_id: str) -> WorkflowExecutionDescription:
        """Describes a run of any pattern. Raises 404 if there is none with this id."""
        if is_public_id(run_id) and run_id.partition("_")[0] in _RUN_PREFIXES:
            found = await find_execution(self.client, build_workflow_id(tenant, run_id))
            if found is not None and found.workflow_type in PATTERN_OF_TYPE:
                bind_contextvars(run_id=run_id)  # for the request's line in the log
                return found
        raise not_found("This run")

    async def read_requests(self, tenant: str, run_id: str) -> tuple[RunStatus, list[InputRequest] | None]:
        """Returns the state of a run that has not ended, for a waiting client, and its questions."""
        questions = await self.desk.read(await self.find(tenant, run_id))
        if not questions:
            return RunStatus.PROCESSING, None
        return RunStatus.INPUT_REQUIRED, self.desk.show(tenant, run_id, questions)

    async def summarize(self, execution: WorkflowExecution) -> RunSummary | None:
        """Returns a listed run as it is now; None if it was retried since, which visibility lists by itself.
        Visibility lags and does not know `queued`, so what may have changed is described again.
        """
        if execution.status is WorkflowExecutionStatus.COMPLETED:
            return summarize_run(self.ui, execution)
        latest = await find_execution(self.client, execution.id)
        if latest is not None and latest.run_id != execution.run_id:
            return None
        return summarize_run(self.ui, latest or execution)

    async def load(self, description: WorkflowExecutionDescription, *, with_steps: bool = False) -> Run:
        """Returns a run with its progress, result or error, and with its steps, which are read from its history."""
        summary = summarize_run(self.ui, description)
        progress, attempt = await self._load_call_progress(description)
        memo = await description.memo()
        if PROGRESS_MEMO in memo and summary.status is RunStatus.PROCESSING:
            progress = Progress.model_validate(memo[PROGRESS_MEMO])
        if TOTAL_MEMO in memo:
            progress = await self._load_items_progress(description, memo[TOTAL_MEMO])
        result: RunResult | None = None
        error = _find_overdue_error(memo, description)
        if error is not None:
            summary = summary.model_copy(update={"status": RunStatus.FAILED})
        elif summary.status in (RunStatus.COMPLETED, RunStatus.FAILED):
            result, error = await fetch_outcome(self.client, description.id)
        questions = await self.desk.read(description)
        tenant, run_id = parse_tenant(description.id), parse_public_id(description.id)
        return Run(
            **dict(summary),
            requests=self.desk.show(tenant, run_id, questions) if questions else None,
            steps=await self._load_steps(description) if with_steps else None,
            progress=progress,
            attempt=result.attempts if result else error.attempts if error else attempt,
            waiting=await self._find_waiting(summary.status, description, memo),
            cancel_requested=is_cancel_requested(description),
            metadata=memo.get("metadata", {}),
            result=RunAnswer.from_result(result) if result else None,
            error=error,
            trace_id=memo.get(TRACE_MEMO),
            webhook=await load_run_webhook(self.client, description.id, memo.get(GENERATION_MEMO, 1))
            if WEBHOOK_MEMO in memo
            else None,
        )

    async def _load_steps(self, description: WorkflowExecutionDescription) -> list[StepView] | None:
        """Returns the steps of a durable agent; None if the run has none."""
        running: list[RunningStep] = []
        for activity in pending_activities(self.client, description):
            if activity.type_name == "call_agent" and activity.heartbeat:
                (last,) = await activity.heartbeat.decode(CallHeartbeat)
                running = last.steps if activity.state is ActivityState.RUNNING else []
        if STEPS_MEMO not in memo_names(description):
            return view_steps([], running) or None
        handle = self.client.get_workflow_handle(description.id, run_id=description.run_id)
        return view_steps(await read_steps(self.client, handle), running)

    async def _load_call_progress(self, description: WorkflowExecutionDescription) -> tuple[Progress | None, int]:
        """Returns the progress and the attempt of the agent call. They come from its heartbeat, which costs neither a
        query nor a history event.
        """
        for activity in pending_activities(self.client, description):
            if activity.type_name != "call_agent":
                continue
            last = CallHeartbeat()
            if activity.heartbeat:
                (last,) = await activity.heartbeat.decode(CallHeartbeat)
            working = activity.state is ActivityState.RUNNING
            return (last.progress if working else None), max(1, activity.attempt - last.skipped_attempts)
        return None, 1

    async def _load_items_progress(self, description: WorkflowExecutionDescription, total: int) -> Progress | None:
        if description.close_time is not None:
            return None
        ended = await count_items(self.client, description)
        done = ended.completed + ended.failed
        return Progress(percent=100 * done / total, note=f"{done} of {total} items")

    async def _find_waiting(
        self, status: RunStatus, description: WorkflowExecutionDescription, memo: Mapping[str, Any]
    ) -> Waiting | None:
        if description.close_time is not None:
            return None
        if memo.get(WAITING_MEMO):  # A workflow agent has no activity that waits.
            return Waiting.model_validate(memo[WAITING_MEMO])
        if status is RunStatus.QUEUED:
            found = await self.pollers.find(description.task_queue)
            if found.unserved:
                reason = (
                    f"No {found.unserved_text} poll the task queue {description.task_queue}; start one with "
                    "`sevenfold worker`."
                )
                return Waiting(reason=reason, until=None)
        for activity in pending_activities(self.client, description):
            if activity.type_name not in ("call_agent", "process_chunk"):
                continue
            if activity.state is ActivityState.PAUSED:
                return Waiting(reason=f"An operator has paused the activity {activity.id}.", until=None)
            if activity.state is ActivityState.WAITING and (failure := await activity.load_last_failure()):
                return Waiting(reason=failure, until=activity.next_attempt_at)
        return None


def _find_overdue_error(memo: Mapping[str, Any], description: WorkflowExecutionDescription) -> RunError | None:
    """Returns the error of an open run whose deadline has passed while no worker was there to end it. The workflow
    takes no answer after the same grace period, so the status that is reported here never changes.
    """
    if description.close_time is not None or DEADLINE_MEMO not in memo:
        return None
    deadline = datetime.fromisoformat(memo[DEADLINE_MEMO])
    if datetime.now(UTC) <= deadline + DEADLINE_GRACE:
        return None
    detail = f"The run had no answer by its deadline, {deadline:%Y-%m-%dT%H:%M:%SZ}."
    return RunError(code=ErrorCode.DEADLINE_EXCEEDED, detail=detail)
