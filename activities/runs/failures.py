"""Turns what went wrong in a call into the Temporal failure that says whether to try again."""

from datetime import timedelta

from temporalio.exceptions import ApplicationError

from sevenfold.adapters.agents.error_boundary import as_agent_error
from sevenfold.contracts.agent import AgentContext
from sevenfold.contracts.runs import RunError
from sevenfold.contracts.verdicts import AgentError


def to_agent_error(error: Exception) -> AgentError:
    """What a call failed by: an agent's error as it is, or one made of what its publisher raised."""
    return error if isinstance(error, AgentError) else as_agent_error(error)


def clamp_retry_after(refusal: AgentError, context: AgentContext) -> AgentError:
    """Temporal gives up at once what is to be tried again after the deadline; so some of the time is kept."""
    refusal.retry_after = min(refusal.retry_after or 1.0, max(0.1, context.remaining_seconds() * 0.8))
    return refusal


def to_application_error(error: AgentError, attempt: int, *, final: bool = False) -> ApplicationError:
    """The same verdict for Temporal, which takes the pause from it, and whether to try again (`final`: no)."""
    detail = RunError(
        code=error.code,
        detail=error.detail,
        attempts=attempt,
        retry_after=error.retry_after,
        pointer=error.pointer,
    )
    return ApplicationError(
        error.detail,
        detail,
        type=error.code,
        non_retryable=final or not error.code.is_retryable,
        next_retry_delay=None if error.retry_after is None else timedelta(seconds=error.retry_after),
    )
