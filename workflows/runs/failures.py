"""Reads what became of an agent call, and makes the failure that a run ends with."""

from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutError

from sevenfold.contracts.runs import RunError
from sevenfold.contracts.verdicts import ErrorCode


def to_run_error(error: FailureError, timeout: float) -> RunError:
    """Why the call failed, whatever form Temporal gave it. `timeout` is the run's, in seconds."""
    # A local activity's failure comes bare, a regular one's as the cause of an ActivityError.
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError):
        return _read_application_error(cause)
    if isinstance(cause, TimeoutError):
        if cause.type is not None and cause.type.name == "HEARTBEAT":
            return RunError(
                code=ErrorCode.AGENT_UNAVAILABLE,
                detail="Every worker that called the agent stopped answering.",
            )
        return _deadline_error(timeout, cause.cause)
    return RunError(code=ErrorCode.INTERNAL, detail="The agent call ended in an unknown way.")


def _read_application_error(error: ApplicationError) -> RunError:
    for detail in error.details:
        # Decoded without a type, since a failure's details carry none.
        return RunError.model_validate(detail)
    code = error.type if error.type in list(ErrorCode) else ErrorCode.INTERNAL
    return RunError(code=ErrorCode(code), detail=error.message)


def _deadline_error(timeout: float, last: BaseException | None) -> RunError:
    detail = f"The agent had not answered when the run's timeout of {timeout:g} s was over."
    attempts = 1
    if isinstance(last, ApplicationError):
        failed = _read_application_error(last)
        attempts = failed.attempts
        detail += f" Its last attempt failed: {failed.detail}"
    return RunError(code=ErrorCode.DEADLINE_EXCEEDED, detail=detail, attempts=attempts)


def deadline_failure(timeout: float) -> ApplicationError:
    """The failure of a run whose time was over before its agent could be asked."""
    return to_application_error(_deadline_error(timeout, None))


def to_application_error(error: RunError) -> ApplicationError:
    """The failure that ends a run: its type is the verdict, its one detail the RunError."""
    return ApplicationError(error.detail, error, type=error.code, non_retryable=True)
