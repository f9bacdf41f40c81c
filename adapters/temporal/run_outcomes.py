"""Status and outcome of runs, read from Temporal."""

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

from sevenfold.adapters.temporal.encoded import memo_names, workflow_input
from sevenfold.adapters.temporal.errors import is_transient
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.questions import QUESTIONS_MEMO
from sevenfold.contracts.runs.run import RunError, RunOutcome, RunResult, RunStatus

# Pause before retrying after a lost connection, for a server that restarts.
_PAUSE_AFTER_LOST_CONNECTION = 0.5

# Sometimes the server does not report a completion, and a long poll expires after 20 s
# (docs/decisions/lost-completions.md). This poll ends a second earlier than its time-out and is repeated.
_LONG_POLL_TIMEOUT = timedelta(seconds=4)

# A list reports open runs as `processing`; only `describe` detects runs that no worker has started.
_STATUS_OF_EXECUTION = {
    WorkflowExecutionStatus.RUNNING: RunStatus.PROCESSING,
    WorkflowExecutionStatus.CONTINUED_AS_NEW: RunStatus.PROCESSING,
    WorkflowExecutionStatus.COMPLETED: RunStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED: RunStatus.FAILED,
    WorkflowExecutionStatus.TERMINATED: RunStatus.FAILED,
    WorkflowExecutionStatus.TIMED_OUT: RunStatus.FAILED,
    WorkflowExecutionStatus.CANCELED: RunStatus.CANCELLED,
}

# The start and one scheduled task: no worker has started the run.
_NOT_STARTED_EVENTS = 2
_FIRST_TASK = timedelta(milliseconds=200)


# A word in the server's reason when it terminates a run that exceeds a limit.
_SERVER_LIMIT_WORD = "exceeds"

T = TypeVar("T")


class RunCancelledError(Exception):
    """The run was cancelled."""


class RunFailedError(Exception):
    """The run failed; `error` has the reason."""

    def __init__(self, error: RunError) -> None:
        super().__init__(error.detail)
        self.error = error


async def await_result(handle: WorkflowHandle[Any, RunResult], seconds: float | None) -> RunResult | None:
    """Returns the run's result, or None if there is none after `seconds` seconds (None: waits without a limit). The
    run itself continues.

    Raises RunFailedError or RunCancelledError if the run ended so.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await handle.result(rpc_timeout=_LONG_POLL_TIMEOUT)
                except RPCError as error:
                    if not is_transient(error):  # A poll that timed out is transient too.
                        raise
                    await asyncio.sleep(_PAUSE_AFTER_LOST_CONNECTION)
    except builtins.TimeoutError:
        return None
    except WorkflowFailureError as error:
        raise to_run_error(error) from error


async def await_outcome(handle: WorkflowHandle[Any, RunResult]) -> RunOutcome:
    """Waits for the run's end and returns its outcome. Raises RPCError if the run does not exist."""
    try:
        return RunOutcome(RunStatus.COMPLETED, result=await await_result(handle, None))
    except RunCancelledError:
        return RunOutcome(RunStatus.CANCELLED)
    except RunFailedError as failure:
        return RunOutcome(RunStatus.FAILED, error=failure.error)


def to_run_error(error: WorkflowFailureError) -> RunFailedError | RunCancelledError:
    """Converts Temporal's failure."""
    match error.cause:
        case CancelledError():
            return RunCancelledError()
        case TerminatedError():
            detail = str(error.cause) or "An operator terminated the run."
            if _SERVER_LIMIT_WORD in detail:
                return RunFailedError(RunError(code=ErrorCode.INTERNAL, detail=f"Temporal ended the run: {detail}"))
            return RunFailedError(RunError(code=ErrorCode.TERMINATED, detail=detail))
        case TimeoutError():
            return RunFailedError(RunError(code=ErrorCode.DEADLINE_EXCEEDED, detail="The run exceeded its timeout."))
        case ApplicationError(details=(detail, *_)) if isinstance(detail, dict):
            return RunFailedError(RunError.model_validate(detail))
        case ApplicationError(type=ErrorCode.PAYLOAD_LOST) as lost:
            return RunFailedError(RunError(code=ErrorCode.PAYLOAD_LOST, detail=lost.message))
    return RunFailedError(
        RunError(code=ErrorCode.INTERNAL, detail="The run failed; the Temporal UI shows the reason.")
    )


async def fetch_outcome(
    client: Client, workflow_id: str, result_type: type[RunResult] = RunResult
) -> tuple[RunResult | None, RunError | None]:
    """Returns the result or the error of a run that has ended, by its workflow id."""
    handle = client.get_workflow_handle(workflow_id, result_type=result_type)
    try:
        return await handle.result(), None
    except WorkflowFailureError as failure:
        error = to_run_error(failure)
        return None, error.error if isinstance(error, RunFailedError) else None


def to_run_status(execution: WorkflowExecution) -> RunStatus:
    """Converts Temporal's status; only a description distinguishes `queued` from `processing`."""
    status = _STATUS_OF_EXECUTION.get(execution.status or WorkflowExecutionStatus.RUNNING, RunStatus.PROCESSING)
    if status is RunStatus.PROCESSING and isinstance(execution, WorkflowExecutionDescription):
        if QUESTIONS_MEMO in memo_names(execution):
            return RunStatus.INPUT_REQUIRED
        return RunStatus.QUEUED if _is_not_started(execution) else status
    return status


def _is_not_started(execution: WorkflowExecutionDescription) -> bool:
    """Whether no worker has started the run: its first workflow task still waits."""
    task = execution.raw_description.pending_workflow_task
    if task.HasField("started_time") or not task.HasField("original_scheduled_time"):
        return False
    # Signals and a cancellation may have arrived meanwhile; a later task would have a later schedule time.
    scheduled = task.original_scheduled_time.ToDatetime(UTC)
    return execution.history_length <= _NOT_STARTED_EVENTS or abs(scheduled - execution.start_time) < _FIRST_TASK


def is_cancel_requested(execution: WorkflowExecutionDescription) -> bool:
    """Whether the cancellation of an open run was requested."""
    return execution.close_time is None and execution.raw_description.workflow_extended_info.cancel_requested


async def fetch_input(client: Client, execution: WorkflowExecution, input_type: type[T]) -> T:
    """Returns a workflow's input, from the first event of its history."""
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
    async for event in handle.fetch_history_events(page_size=1):
        return (await workflow_input(client, event)[:1].decode(input_type))[0]
    raise RuntimeError(f"the history of {execution.id} is empty")
