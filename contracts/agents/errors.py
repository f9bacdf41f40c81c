"""Errors of agent calls, defined once, so that raise and catch cannot diverge.

Agents raise these, the activity converts them to Temporal failures of the same type name, and the API maps those
names to problems. Clients read `detail`: it must never contain a secret.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeGuard

from sevenfold.contracts.agents.interface import Usage

if TYPE_CHECKING:
    from sevenfold.contracts.agents.usage import ExceededQuota


class ErrorCode(StrEnum):
    """Type names of failed runs, in Temporal's history and in `error.code` on the wire."""

    AGENT_FAILED = "AgentFailed"
    AGENT_BUG = "AgentBug"
    AGENT_UNAVAILABLE = "AgentUnavailable"
    AGENT_RATE_LIMITED = "AgentRateLimited"
    AGENT_REJECTED = "AgentRejected"
    AGENT_BUSY = "AgentBusy"
    CIRCUIT_OPEN = "CircuitOpen"
    DOCUMENT_UNAVAILABLE = "DocumentUnavailable"
    DOCUMENT_UNREADABLE = "DocumentUnreadable"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    PAYLOAD_LOST = "PayloadLost"
    EVENT_REFUSED = "EventRefused"
    TOO_MANY_FAILURES = "TooManyFailures"
    QUOTA_EXCEEDED = "QuotaExceeded"
    RUN_LIMIT_REACHED = "RunLimitReached"
    TERMINATED = "Terminated"
    INTERNAL = "Internal"

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt of the same call may succeed."""
        return self in _RETRYABLE


_RETRYABLE = (
    ErrorCode.AGENT_FAILED,
    ErrorCode.AGENT_BUG,
    ErrorCode.AGENT_UNAVAILABLE,
    ErrorCode.AGENT_RATE_LIMITED,
    ErrorCode.AGENT_BUSY,
    ErrorCode.CIRCUIT_OPEN,
    ErrorCode.DOCUMENT_UNAVAILABLE,
    ErrorCode.QUOTA_EXCEEDED,
)


class AgentError(Exception):
    """A failed call. `retry_after` is in seconds; `pointer` (RFC 6901) names the invalid field, if there is one.
    `usage`: what the failed attempt has used, for the budgets.
    """

    code: ErrorCode = ErrorCode.AGENT_FAILED

    def __init__(
        self,
        detail: str,
        *,
        retry_after: float | None = None,
        pointer: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.pointer = pointer
        self.usage = usage


class AgentFailed(AgentError):  # noqa: N818
    """The agent's code raised another exception. The call is retried. `is_outage`: it was an error of a connection, a
    time-out, or the agent's own word; otherwise development takes it for a mistake in the code.
    """

    code = ErrorCode.AGENT_FAILED

    def __init__(self, detail: str, *, is_outage: bool = True, **more: Any) -> None:
        super().__init__(detail, **more)
        self.is_outage = is_outage


class AgentBug(AgentFailed):
    """The agent's code raised what mostly is a mistake in it, such as a NameError. In production the call is retried:
    a KeyError may come from a model's odd answer. In development it is not, and `traceback` has the place.
    """

    code = ErrorCode.AGENT_BUG

    def __init__(self, detail: str, *, traceback: str | None = None, **more: Any) -> None:
        super().__init__(detail, **{**more, "is_outage": False})
        self.traceback = traceback


def is_bug(error: BaseException | None) -> TypeGuard[AgentFailed]:
    """Whether development takes this error for a mistake in the agent's code."""
    return isinstance(error, AgentFailed) and not error.is_outage


class AgentUnavailable(AgentError):  # noqa: N818
    """The agent did not answer, or its answer broke off. The call is retried."""

    code = ErrorCode.AGENT_UNAVAILABLE


class AgentRateLimited(AgentError):  # noqa: N818
    """The agent limits its rate. The call is retried after `retry_after` seconds."""

    code = ErrorCode.AGENT_RATE_LIMITED


class AgentBusy(AgentError):  # noqa: N818
    """The configured limits of the agent are used up; the agent was not called."""

    code = ErrorCode.AGENT_BUSY


# Where the timeout is not known; runs say how long it was.
DEADLINE_PASSED = "The agent did not answer before the run's deadline."


class DeadlineExceeded(AgentError):  # noqa: N818
    """The run's deadline passed before the agent answered."""

    code = ErrorCode.DEADLINE_EXCEEDED


class CircuitOpen(AgentError):  # noqa: N818
    """The agent's circuit breaker is open; the agent was not called."""

    code = ErrorCode.CIRCUIT_OPEN


class QuotaExceeded(AgentError):  # noqa: N818
    """The budget of the tenant or the key is used up; the agent was not called."""

    code = ErrorCode.QUOTA_EXCEEDED

    def __init__(self, detail: str, *, quota: "ExceededQuota | None" = None, **more: Any) -> None:
        super().__init__(detail, **more)
        self.quota = quota


class RunLimitReached(AgentError):  # noqa: N818
    """The run has used what its `maxTokens` or `maxCost` permits, and was stopped."""

    code = ErrorCode.RUN_LIMIT_REACHED


class AgentRejected(AgentError):  # noqa: N818
    """The agent will never accept this request. With a `pointer` the request is invalid, otherwise the agent
    failed.
    """

    code = ErrorCode.AGENT_REJECTED


class StepMismatch(AgentRejected):
    """The agent's steps come in another order than in an earlier attempt, so what is recorded does not fit."""


class DocumentUnavailable(AgentError):  # noqa: N818
    """The document could not be fetched. The fetch is retried."""

    code = ErrorCode.DOCUMENT_UNAVAILABLE


class DocumentUnreadable(AgentError):  # noqa: N818
    """No text can be extracted from this document."""

    code = ErrorCode.DOCUMENT_UNREADABLE
