"""Waits for a run, and reads how it ended."""

import asyncio
import builtins
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError, TimeoutError
from temporalio.service import RPCError, RPCStatusCode

from contracts.runs import RunEnd, RunError, RunResult, RunStatus
from contracts.verdicts import Verdict

# A server that restarts is waited for; one that stays away is found out by the next request.
_PAUSE_AFTER_LOST_CONNECTION = 0.5


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
                    return await handle.result()
                except RPCError as error:
                    if error.status not in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED):
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
            return RunFailedError(RunError(verdict=Verdict.TERMINATED, detail=detail))
        case TimeoutError():
            return RunFailedError(RunError(verdict=Verdict.DEADLINE_EXCEEDED, detail="The run's time is over."))
        case ApplicationError(details=(detail, *_)) if isinstance(detail, dict):
            return RunFailedError(RunError.model_validate(detail))
    return RunFailedError(RunError(verdict=Verdict.INTERNAL, detail="The run failed; the Temporal UI says why."))
