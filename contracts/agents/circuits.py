"""State of an agent's circuit breaker while it is not closed; all processes share it."""

from datetime import datetime, timedelta
from enum import StrEnum

from sevenfold.contracts.payload import Payload, Seconds

# The memo of CircuitBreaker that holds its OpenCircuit.
CIRCUIT_MEMO = "state"


PROBE_TIMEOUT_SECONDS = 60.0


def circuit_workflow_id(agent: str) -> str:
    """Returns the workflow id of an agent's circuit breaker."""
    return f"circuit:{agent}"


def control_task_queue(task_queue: str) -> str:
    """The task queue of circuit breakers and limits, separate so that a flood of runs does not delay them."""
    return f"{task_queue}-control"


class BreakerState(StrEnum):
    """`open`: calls are refused. `half-open`: one call is admitted as a probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerTimings(Payload):
    """How long a circuit stays open at first, and at most, in seconds."""

    open_seconds: Seconds
    max_open_seconds: Seconds


class OpenCircuit(Payload):
    """A circuit that is not closed: input and memo of its workflow.

    `probe_after`: when it may be probed. `consecutive_openings`: openings since it was last closed. `probe_id`: the
    call that probes, since `probe_started_at`.
    """

    timings: BreakerTimings
    opened_at: datetime
    probe_after: datetime
    consecutive_openings: int = 1
    probe_id: str | None = None
    probe_started_at: datetime | None = None

    @classmethod
    def first_opening(cls, timings: BreakerTimings, now: datetime) -> "OpenCircuit":
        """Returns the state after the first opening."""
        return cls(timings=timings, opened_at=now, probe_after=now + timedelta(seconds=timings.open_seconds))

    def reopened(self, now: datetime) -> "OpenCircuit":
        """Returns the state after a failed probe: open for twice as long as before, at most `max_open_seconds`."""
        pause = min(
            self.timings.max_open_seconds, self.timings.open_seconds * 2.0 ** min(self.consecutive_openings, 30)
        )
        return OpenCircuit(
            timings=self.timings,
            opened_at=self.opened_at,
            probe_after=now + timedelta(seconds=pause),
            consecutive_openings=self.consecutive_openings + 1,
        )

    def state_at(self, now: datetime) -> BreakerState:
        """Returns `open` before `probe_after`, then `half-open`."""
        return BreakerState.OPEN if now < self.probe_after else BreakerState.HALF_OPEN

    def is_being_probed(self, now: datetime) -> bool:
        """Whether a probe is in flight. A probe may take long like any call; after `PROBE_TIMEOUT_SECONDS` another
        one is admitted.
        """
        return (
            self.probe_started_at is not None
            and (now - self.probe_started_at).total_seconds() < PROBE_TIMEOUT_SECONDS
        )
