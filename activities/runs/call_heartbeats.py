"""What an attempt of `call_agent` leaves to the next one in its heartbeats."""

from temporalio import activity

from sevenfold.activities.runs.running_call import CallInFlight
from sevenfold.contracts.agents.usage import UsageTotals
from sevenfold.contracts.runs.calls import AgentCall, CallHeartbeat

# Steps that are executed at once, and shown.
_SHOWN_STEPS = 20


def prior_usage(call: AgentCall, last: CallHeartbeat) -> UsageTotals:
    """Returns what the run's earlier attempts have used: a heartbeat includes those before this activity."""
    return last.usage if last.usage.calls else call.prior_usage


def build_heartbeat(running: CallInFlight, skipped_attempts: int, *, failed: bool = False) -> CallHeartbeat:
    """Returns the heartbeat of a running call, or of one that has ended."""
    return CallHeartbeat(
        progress=running.progress,
        skipped_attempts=skipped_attempts,
        agent_called=True,
        usage=running.spending.sum(running.usage, failed=failed),
        steps=running.durable.running_steps[:_SHOWN_STEPS] if running.durable is not None else [],
    )


def last_heartbeat() -> CallHeartbeat:
    """Returns the heartbeat of the previous attempt.

    After a reset by an operator Temporal counts attempts from 1 again, so `skipped_attempts` is limited to the
    attempts made.
    """
    info = activity.info()
    if not info.heartbeat_details:
        return CallHeartbeat()
    last = CallHeartbeat.model_validate(info.heartbeat_details[0])
    return last.model_copy(update={"skipped_attempts": min(last.skipped_attempts, info.attempt - 1)})
