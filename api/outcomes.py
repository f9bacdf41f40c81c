"""Waits for a run, and reads how it ended."""

import asyncio
import builtins
from datetime import timedelta
from typing import Any

from pydantic import Field
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError, TimeoutError
from temporalio.service import RPCError, RPCStatusCode

from contracts.agent import Confidence, Usage
from contracts.payload import JsonObject, Payload
from contracts.runs import RunError, RunResult
from contracts.verdicts import Verdict

# A server that restarts is waited for; one that stays away is found out by the next request.
_PAUSE_AFTER_LOST_CONNECTION = 0.5


class Answer(Payload):
    """What an agent answered, as clients see it."""

    response: str
    confidence: Confidence | None
    processing_time: str = Field(description="From the start of the run to the reply.", examples=["2.3s"])
    data: JsonObject | None = None
    usage: Usage | None = None

    @classmethod
    def of(cls, result: RunResult) -> "Answer":
        """The wire's form of a run's result."""
        reply = result.reply
        return cls(
            response=reply.response,
            confidence=reply.confidence,
            processing_time=processing_time(result.seconds),
            data=reply.data,
            usage=reply.usage,
        )


def processing_time(seconds: float) -> str:
    """`"2.3s"`; below a second in milliseconds' detail: `"0.017s"`."""
    return f"{seconds:.1f}s" if seconds >= 1 else f"{seconds:.3f}s"


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


def retry_after(waited: float) -> timedelta:
    """When to look again at a run that has already taken so long: as long again, from 1 s to 30 s."""
    return timedelta(seconds=min(30.0, max(1.0, waited)))
