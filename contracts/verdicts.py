"""What may become of a call to an agent, named once, so that raise and catch cannot diverge.

Agents raise these, the activity turns them into Temporal failures of the same type name, and the API turns
those names into problems. `detail` is read by the client: it must never hold a secret.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """The type names of a failed run, in Temporal's history and in `error.code` on the wire."""

    AGENT_FAILED = "AgentFailed"
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
    TERMINATED = "Terminated"
    INTERNAL = "Internal"

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt of the same call may end better."""
        return self in _RETRYABLE


_RETRYABLE = (
    ErrorCode.AGENT_FAILED,
    ErrorCode.AGENT_UNAVAILABLE,
    ErrorCode.AGENT_RATE_LIMITED,
    ErrorCode.AGENT_BUSY,
    ErrorCode.CIRCUIT_OPEN,
    ErrorCode.DOCUMENT_UNAVAILABLE,
)


class AgentError(Exception):
    """A failed call. `retry_after` is in seconds; `pointer` (RFC 6901) names the field at fault, if one is."""

    code: ErrorCode = ErrorCode.AGENT_FAILED

    def __init__(self, detail: str, *, retry_after: float | None = None, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.pointer = pointer


class AgentFailed(AgentError):  # noqa: N818
    """The agent's own code raised something that is none of these errors: the next attempt may work."""

    code = ErrorCode.AGENT_FAILED


class AgentUnavailable(AgentError):  # noqa: N818  (a verdict's name is part of the contract)
    """The agent did not answer, or broke off: the next attempt may work."""

    code = ErrorCode.AGENT_UNAVAILABLE


class AgentRateLimited(AgentError):  # noqa: N818
    """The agent asked for a pause of `retry_after` seconds."""

    code = ErrorCode.AGENT_RATE_LIMITED


class AgentBusy(AgentError):  # noqa: N818
    """The agent has as many calls as our own limits allow, and was not called."""

    code = ErrorCode.AGENT_BUSY


class DeadlineExceeded(AgentError):  # noqa: N818
    """The run's time was over before the agent had answered."""

    code = ErrorCode.DEADLINE_EXCEEDED


class CircuitOpen(AgentError):  # noqa: N818
    """The agent is known to be down and was not called."""

    code = ErrorCode.CIRCUIT_OPEN


class AgentRejected(AgentError):  # noqa: N818
    """The agent will never do this. With a `pointer` the request is at fault, else the agent."""

    code = ErrorCode.AGENT_REJECTED


class DocumentUnavailable(AgentError):  # noqa: N818
    """The document could not be fetched: the next attempt may work."""

    code = ErrorCode.DOCUMENT_UNAVAILABLE


class DocumentUnreadable(AgentError):  # noqa: N818
    """No agent will ever get a text out of this document."""

    code = ErrorCode.DOCUMENT_UNREADABLE
