"""An agent's limits, and their allocation to processes, whose sum never exceeds the limits."""

from sevenfold.contracts.payload import Payload, Seconds

# A process that has not renewed for this long counts as dead, and its share is reallocated.
LEASE_SECONDS = 10.0


def limits_workflow_id(agent: str) -> str:
    """Returns the workflow id of an agent's limits."""
    return f"limits:{agent}"


class Limits(Payload):
    """Concurrent calls and calls per second across all workers; None is unlimited."""

    max_concurrency: int | None = None
    rate: float | None = None


class LeaseRequest(Payload):
    """A process's renewal: its calls in flight, the calls that it could make now, and whether it makes calls at
    all.
    """

    process: str
    limits: Limits
    in_use: int
    demand: int
    is_calling: bool


class LeaseGrant(Payload):
    """What a process may use for LEASE_SECONDS: concurrent calls, and calls per second. If `target_slots` is below
    `slots`, other processes wait for slots: the process returns slots as its calls end, down to the target.
    """

    slots: int
    target_slots: int
    rate: float


class Allocation(Payload):
    """A process's share and demand. `renewed_at`: time of the last renewal. `holding_since`: since when it has slots,
    or waits without any. Both in seconds of the workflow's clock.
    """

    slots: int = 0
    rate: float = 0.0
    demand: int = 0
    is_calling: bool = False
    renewed_at: Seconds = 0.0
    holding_since: Seconds = 0.0


class LimitsState(Payload):
    """Input of `AgentLimits`."""

    allocations: dict[str, Allocation] = {}
