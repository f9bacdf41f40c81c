"""The circuit of an agent: open while its server is known to be down, shared by all processes."""

from datetime import datetime, timedelta
from enum import StrEnum

from sevenfold.contracts.payload import Payload, Seconds

# The memo of an CircuitBreaker that holds its OpenCircuit.
CIRCUIT_MEMO = "state"


PROBE_TIMEOUT_SECONDS = 60.0  # seconds


def circuit_workflow_id(agent: str) -> str:
    """The workflow id of an agent's circuit."""
    return f"circuit:{agent}"


def control_task_queue(task_queue: str) -> str:
    """The task queue of circuits and limits: no flood of runs may hold them up."""
    return f"{task_queue}-control"


class BreakerState(StrEnum):
    """`open`: nobody calls the agent. `half-open`: one call is made, to see how it is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerTimings(Payload):
    """How long an agent that is down is left alone at first, and at most."""

    open_seconds: Seconds
    max_open_seconds: Seconds


class OpenCircuit(Payload):
    """A circuit that is not closed, as its workflow takes and shows it. `probe_after` is when it may be probed,
    `consecutive_openings` how often it was opened in a row, `probe_id` names the call that probes, since
    `probe_started_at`.
    """

    timings: BreakerTimings
    opened_at: datetime
    probe_after: datetime
    consecutive_openings: int = 1
    probe_id: str | None = None
    probe_started_at: datetime | None = None

    @classmethod
    def first_opening(cls, timings: BreakerTimings, now: datetime) -> "OpenCircuit":
        """For the first time."""
        return cls(timings=timings, opened_at=now, probe_after=now + timedelta(seconds=timings.open_seconds))

    def reopened(self, now: datetime) -> "OpenCircuit":
        """For twice as long as before."""
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
        """Where it stands."""
        return BreakerState.OPEN if now < self.probe_after else BreakerState.HALF_OPEN

    def is_being_probed(self, now: datetime) -> bool:
        """Whether a probe is under way. It is a call like any other and may take long; after a minute another one is
        made.
        """
        return (
            self.probe_started_at is not None
            and (now - self.probe_started_at).total_seconds() < PROBE_TIMEOUT_SECONDS
        )
