"""Converts failures of agent calls to RunErrors, and RunErrors to the failure that ends a run."""

from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutError

from sevenfold.contracts.agents.errors import DEADLINE_PASSED, ErrorCode
from sevenfold.contracts.runs.run import RunError


def to_run_error(error: FailureError, timeout: float) -> RunError:
    """Returns the RunError of a failed call, whichever exception Temporal wrapped it in. `timeout` is the run's, in
    seconds.
    """
    # A local activity's failure is the ApplicationError itself, a regular activity's is the cause of an
    # ActivityError.
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError):
        failed = _read_application_error(cause)
        # The worker and Temporal both watch the deadline: the failure reads the same, whichever is first.
        detail = failed.detail.replace(DEADLINE_PASSED, _describe_deadline(timeout))
        return failed.model_copy(update={"detail": detail})
    if isinstance(cause, TimeoutError):
        if cause.type is not None and cause.type.name == "HEARTBEAT":
            return RunError(
                code=ErrorCode.AGENT_UNAVAILABLE,
                detail="Every worker that called the agent stopped sending heartbeats.",
            )
        return _deadline_error(timeout, cause.cause)
    return RunError(code=ErrorCode.INTERNAL, detail="The agent call failed with an unexpected Temporal failure.")


def is_final(error: FailureError) -> bool:
    """Whether the activity has failed in a way that no further attempt changes."""
    cause = error.cause if isinstance(error, ActivityError) else error
    return isinstance(cause, ApplicationError) and cause.non_retryable


def _read_application_error(error: ApplicationError) -> RunError:
    for detail in error.details:
        # Failure details carry no type, so they are decoded to a plain dict.
        return RunError.model_validate(detail)
    code = error.type if error.type in list(ErrorCode) else ErrorCode.INTERNAL
    return RunError(code=ErrorCode(code), detail=error.message)


def _deadline_error(timeout: float, last: BaseException | None) -> RunError:
    detail = _describe_deadline(timeout)
    attempts, usage = 1, None
    if isinstance(last, ApplicationError):
        failed = _read_application_error(last)
        attempts, usage = failed.attempts, failed.usage
        if failed.code is ErrorCode.QUOTA_EXCEEDED:
            detail = f"The run waited for its budget until its timeout of {timeout:g} s. {failed.detail}"
        else:
            detail += f" Its last attempt failed: {failed.detail}"
    return RunError(code=ErrorCode.DEADLINE_EXCEEDED, detail=detail, attempts=attempts, usage=usage)


def _describe_deadline(timeout: float) -> str:
    return f"The agent did not answer within the run's timeout of {timeout:g} s."


def deadline_failure(timeout: float) -> ApplicationError:
    """The failure of a run whose deadline passed before its agent was called."""
    return to_application_error(_deadline_error(timeout, None))


def to_application_error(error: RunError) -> ApplicationError:
    """The failure that ends a run: its type is the ErrorCode, its one detail the RunError. It is not retryable."""
    return ApplicationError(error.detail, error, type=error.code, non_retryable=True)
