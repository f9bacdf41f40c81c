"""Transient errors of Temporal: one table for all that retry, or ask their client to retry."""

from temporalio.service import RPCError, RPCStatusCode

# Temporal is down or overloaded: nothing is known to be lost, and the call may be repeated.
_TRANSIENT = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.ABORTED,
    }
)

# A connection that breaks during a call has the status UNKNOWN in the SDK's errors, and one of these texts.
_TRANSPORT = ("transport error", "tcp connect error", "h2 protocol error", "connection", "broken pipe")


# An update whose workflow task failed, such as one that timed out on a busy machine; the task is done again.
_FAILED_TASK = "unexpected workflow task failure"


def is_transient(error: RPCError) -> bool:
    """Whether the same call may succeed a moment later."""
    if error.status == RPCStatusCode.FAILED_PRECONDITION:
        return _FAILED_TASK in error.message
    if error.status == RPCStatusCode.UNKNOWN:
        return any(words in error.message.lower() for words in _TRANSPORT)
    return error.status in _TRANSIENT
