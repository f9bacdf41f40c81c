"""Converts the errors of a call to Temporal failures."""

from dataclasses import dataclass
from datetime import timedelta

from temporalio.exceptions import ApplicationError

from sevenfold.adapters.agents.error_boundary import as_agent_error, explain_bug
from sevenfold.contracts.agents.errors import AgentBug, AgentError, QuotaExceeded, is_bug
from sevenfold.contracts.agents.interface import AgentContext
from sevenfold.contracts.agents.usage import NO_USAGE, UsageTotals
from sevenfold.contracts.runs.run import RunError

# A call that was refused looks again at least so often.
MAX_PAUSE_SECONDS = 60.0
_CONTINUES = " The run continues then, or within a minute after the budget was raised."


@dataclass(frozen=True)
class FailureRules:
    """Decides whether a failed attempt is retried. `development`: an agent's bug is explained to its author
    and not retried.
    """

    development: bool = False

    def read(self, error: Exception) -> AgentError:
        """Returns the AgentError of a failed call: an agent's own error, or the conversion of another exception."""
        failed = error if isinstance(error, AgentError) else as_agent_error(error)
        if self.development and is_bug(failed):
            return explain_bug(failed)
        return failed

    def may_retry(self, failed: AgentError) -> bool:
        """Whether another attempt may succeed."""
        return failed.code.is_retryable and not (self.development and isinstance(failed, AgentBug))


def clamp_retry_after(refusal: AgentError, context: AgentContext) -> AgentError:
    """Limits `retry_after` to 80 % of the remaining time: Temporal fails an activity at once if its retry would start
    after the deadline. And to a minute, because a budget may be raised.
    """
    longest = min(MAX_PAUSE_SECONDS, max(0.1, context.remaining_seconds() * 0.8))
    refusal.retry_after = min(refusal.retry_after or 1.0, longest)
    if isinstance(refusal, QuotaExceeded) and _CONTINUES not in refusal.detail:
        refusal.detail += _CONTINUES
    return refusal


def to_application_error(
    error: AgentError, attempt: int, *, final: bool = False, usage: UsageTotals = NO_USAGE
) -> ApplicationError:
    """Returns the Temporal failure with the ErrorCode as its type and the error's `retry_after` as its retry delay.
    It is not retryable if `final` or if the code is not. `usage`: of all attempts so far.
    """
    detail = RunError(
        code=error.code,
        detail=error.detail,
        attempts=attempt,
        retry_after=error.retry_after,
        pointer=error.pointer,
        usage=usage if usage.tokens or usage.micro_usd else None,
        quota=error.quota if isinstance(error, QuotaExceeded) else None,
        traceback=getattr(error, "traceback", None),
    )
    return ApplicationError(
        error.detail,
        detail,
        type=error.code,
        non_retryable=final or not error.code.is_retryable,
        next_retry_delay=None if error.retry_after is None else timedelta(seconds=error.retry_after),
    )
