"""The circuit of an agent: open while its server is known to be down, shared by all processes."""

from datetime import datetime, timedelta
from enum import StrEnum

from contracts.payload import Payload, Seconds

# The memo of an AgentCircuit that holds its CircuitState.
CIRCUIT_STATE = "state"


PROBE_PATIENCE = 60.0  # seconds


def circuit_of(agent: str) -> str:
    """The workflow id of an agent's circuit."""
    return f"circuit:{agent}"


def control_queue(task_queue: str) -> str:
    """The task queue of circuits and limits: no flood of runs may hold them up."""
    return f"{task_queue}-control"


class Phase(StrEnum):
    """`open`: nobody calls the agent. `half-open`: one call is made, to see how it is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitTerms(Payload):
    """How long an agent that is down is left alone at first, and at most."""

    pause: Seconds
    longest_pause: Seconds


class CircuitState(Payload):
    """A circuit that is not closed, as its workflow takes and shows it. `until` is when it may be probed, `openings`
    how often it was opened in a row, `probe` names the call that probes, since `probing_since`.
    """

    terms: CircuitTerms
    opened_at: datetime
    until: datetime
    openings: int = 1
    probe: str | None = None
    probing_since: datetime | None = None

    @classmethod
    def opened(cls, terms: CircuitTerms, now: datetime) -> "CircuitState":
        """For the first time."""
        return cls(terms=terms, opened_at=now, until=now + timedelta(seconds=terms.pause))

    def opened_again(self, now: datetime) -> "CircuitState":
        """For twice as long as before."""
        pause = min(self.terms.longest_pause, self.terms.pause * 2.0 ** min(self.openings, 30))
        return CircuitState(
            terms=self.terms,
            opened_at=self.opened_at,
            until=now + timedelta(seconds=pause),
            openings=self.openings + 1,
        )

    def phase(self, now: datetime) -> Phase:
        """Where it stands."""
        return Phase.OPEN if now < self.until else Phase.HALF_OPEN

    def probed(self, now: datetime) -> bool:
        """Whether a probe is under way. It is a call like any other and may take long; after a minute another one is
        made.
        """
        return self.probing_since is not None and (now - self.probing_since).total_seconds() < PROBE_PATIENCE
