"""Which of Temporal's errors pass by themselves: one table for all who ask again, or tell their client to."""

from temporalio.service import RPCError, RPCStatusCode

# Temporal away, or busy beyond its limits: nothing is known to be lost, and the same call may be made again.
_TRANSIENT = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.ABORTED,
    }
)

# A connection that breaks in the middle of a call has the status UNKNOWN in the SDK's errors, and words like these.
_TRANSPORT = ("transport error", "tcp connect error", "h2 protocol error", "connection", "broken pipe")


def is_transient(error: RPCError) -> bool:
    """Whether the same call may succeed a moment later."""
    if error.status == RPCStatusCode.UNKNOWN:
        return any(words in error.message.lower() for words in _TRANSPORT)
    return error.status in _TRANSIENT
