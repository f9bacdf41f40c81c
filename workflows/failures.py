"""Reads what became of an agent call, and makes the failure that a run ends with."""

from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutError

from contracts.runs import RunError
from contracts.verdicts import Verdict


def run_error(error: FailureError, timeout: float) -> RunError:
    """Why the call failed, whatever form Temporal gave it. `timeout` is the run's, in seconds."""
    # A local activity's failure comes bare, a regular one's as the cause of an ActivityError.
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError):
        return _application_error(cause)
    if isinstance(cause, TimeoutError):
        if cause.type is not None and cause.type.name == "HEARTBEAT":
            return RunError(
                verdict=Verdict.AGENT_UNAVAILABLE,
                detail="Every worker that called the agent stopped answering.",
            )
        return _deadline(timeout, cause.cause)
    return RunError(verdict=Verdict.INTERNAL, detail="The agent call ended in an unknown way.")


def _application_error(error: ApplicationError) -> RunError:
    for detail in error.details:
        # Decoded without a type, since a failure's details carry none.
        return RunError.model_validate(detail)
    verdict = error.type if error.type in list(Verdict) else Verdict.INTERNAL
    return RunError(verdict=Verdict(verdict), detail=error.message)


def _deadline(timeout: float, last: BaseException | None) -> RunError:
    detail = f"The agent had not answered when the run's timeout of {timeout:g} s was over."
    attempts = 1
    if isinstance(last, ApplicationError):
        failed = _application_error(last)
        attempts = failed.attempts
        detail += f" Its last attempt failed: {failed.detail}"
    return RunError(verdict=Verdict.DEADLINE_EXCEEDED, detail=detail, attempts=attempts)


def deadline_exceeded(timeout: float) -> ApplicationError:
    """The failure of a run whose time was over before its agent could be asked."""
    return failure_of(_deadline(timeout, None))


def failure_of(error: RunError) -> ApplicationError:
    """The failure that ends a run: its type is the verdict, its one detail the RunError."""
    return ApplicationError(error.detail, error, type=error.verdict, non_retryable=True)
