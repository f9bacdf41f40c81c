"""What Temporal knows of a run: where it stands, and how it ended."""

import asyncio
import builtins
from datetime import UTC, timedelta
from typing import Any, TypeVar

from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError, TimeoutError
from temporalio.service import RPCError

from adapters.temporal_errors import is_passing
from contracts.runs import RunEnd, RunError, RunResult, RunStatus
from contracts.verdicts import Verdict

# A server that restarts is waited for; one that stays away is found out by the next request.
_PAUSE_AFTER_LOST_CONNECTION = 0.5

# Now and then a server forgets to report a completion, and a long poll expires after 20 s
# (docs/decisions/lost-completions.md). The server answers ours a second before its time, and is asked again.
_QUESTION = timedelta(seconds=4)

# Open runs are `processing` as far as a list knows; `describe` tells which of them no worker has taken yet.
_STATUS_OF_EXECUTION = {
    WorkflowExecutionStatus.RUNNING: RunStatus.PROCESSING,
    WorkflowExecutionStatus.CONTINUED_AS_NEW: RunStatus.PROCESSING,
    WorkflowExecutionStatus.COMPLETED: RunStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED: RunStatus.FAILED,
    WorkflowExecutionStatus.TERMINATED: RunStatus.FAILED,
    WorkflowExecutionStatus.TIMED_OUT: RunStatus.FAILED,
    WorkflowExecutionStatus.CANCELED: RunStatus.CANCELLED,
}

# A history of the start and one scheduled task: nobody has begun to work on it.
_UNTOUCHED_HISTORY = 2
_FIRST_TASK = timedelta(milliseconds=200)


# How the server says that it ended a run itself, since it has grown beyond a limit.
_BY_THE_SERVER = "exceeds"

T = TypeVar("T")


class RunCancelledError(Exception):
    """The run was cancelled."""


class RunFailedError(Exception):
    """The run failed, for the reason given."""

    def __init__(self, error: RunError) -> None:
        super().__init__(error.detail)
        self.error = error


async def result_within(handle: WorkflowHandle[Any, RunResult], seconds: float | None) -> RunResult | None:
    """The run's result, or None if there is none after that many seconds (None: however long it takes). Only the
    waiting is given up.

    Raises RunFailedError or RunCancelledError when the run ended so.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await handle.result(rpc_timeout=_QUESTION)
                except RPCError as error:
                    if not is_passing(error):  # a question that was not answered in its time passes too
                        raise
                    await asyncio.sleep(_PAUSE_AFTER_LOST_CONNECTION)
    except builtins.TimeoutError:
        return None
    except WorkflowFailureError as error:
        raise how_it_ended(error) from error


async def end_of(handle: WorkflowHandle[Any, RunResult]) -> RunEnd:
    """How the run ended, however long it takes until then. Raises RPCError where there is no such run."""
    try:
        return RunEnd(RunStatus.COMPLETED, result=await result_within(handle, None))
    except RunCancelledError:
        return RunEnd(RunStatus.CANCELLED)
    except RunFailedError as failure:
        return RunEnd(RunStatus.FAILED, error=failure.error)


def how_it_ended(error: WorkflowFailureError) -> RunFailedError | RunCancelledError:
    """Reads Temporal's failure as ours."""
    match error.cause:
        case CancelledError():
            return RunCancelledError()
        case TerminatedError():
            detail = str(error.cause) or "An operator terminated the run."
            if _BY_THE_SERVER in detail:
                return RunFailedError(RunError(verdict=Verdict.INTERNAL, detail=f"Temporal ended the run: {detail}"))
            return RunFailedError(RunError(verdict=Verdict.TERMINATED, detail=detail))
        case TimeoutError():
            return RunFailedError(RunError(verdict=Verdict.DEADLINE_EXCEEDED, detail="The run's time is over."))
        case ApplicationError(details=(detail, *_)) if isinstance(detail, dict):
            return RunFailedError(RunError.model_validate(detail))
        case ApplicationError(type=Verdict.PAYLOAD_LOST) as lost:
            return RunFailedError(RunError(verdict=Verdict.PAYLOAD_LOST, detail=lost.message))
    return RunFailedError(RunError(verdict=Verdict.INTERNAL, detail="The run failed; the Temporal UI says why."))


async def ended_run(
    client: Client, workflow: str, result_type: type[RunResult] = RunResult
) -> tuple[RunResult | None, RunError | None]:
    """The result or error of a run that has ended, by its workflow id."""
    handle = client.get_workflow_handle(workflow, result_type=result_type)
    try:
        return await handle.result(), None
    except WorkflowFailureError as failure:
        ended = how_it_ended(failure)
        return None, ended.error if isinstance(ended, RunFailedError) else None


def status_of(execution: WorkflowExecution) -> RunStatus:
    """The status word for what Temporal says; only a description tells `queued` from `processing`."""
    status = _STATUS_OF_EXECUTION.get(execution.status or WorkflowExecutionStatus.RUNNING, RunStatus.PROCESSING)
    if status is RunStatus.PROCESSING and isinstance(execution, WorkflowExecutionDescription):
        return RunStatus.QUEUED if _is_untouched(execution) else status
    return status


def _is_untouched(execution: WorkflowExecutionDescription) -> bool:
    """Whether no worker has ever taken the run: its first task still waits."""
    task = execution.raw_description.pending_workflow_task
    if task.HasField("started_time") or not task.HasField("original_scheduled_time"):
        return False
    # signals and a cancellation may have come meanwhile; a further task would have been scheduled by now
    scheduled = task.original_scheduled_time.ToDatetime(UTC)
    return execution.history_length <= _UNTOUCHED_HISTORY or abs(scheduled - execution.start_time) < _FIRST_TASK


def is_cancel_requested(execution: WorkflowExecutionDescription) -> bool:
    """Whether a run that is open was asked to stop."""
    return execution.close_time is None and execution.raw_description.workflow_extended_info.cancel_requested


async def begun_with(client: Client, execution: WorkflowExecution, input_type: type[T]) -> T:
    """The input of a workflow, which stands in the first event of its history."""
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
    async for event in handle.fetch_history_events(page_size=1):
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        begun: list[T] = await client.data_converter.decode(payloads, [input_type])
        return begun[0]
    raise RuntimeError(f"the history of {execution.id} is empty")
