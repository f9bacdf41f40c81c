"""An agent's limits, and the shares in them that processes hold: together never more than the limits."""

from sevenfold.contracts.payload import Payload, Seconds

# A process that has not asked again for so many seconds is taken for dead, and its share given away.
LEASE_SECONDS = 10.0


def limits_workflow_id(agent: str) -> str:
    """The workflow id of an agent's limits."""
    return f"limits:{agent}"


class Limits(Payload):
    """Calls at once, and calls a second, over all workers together; None for no limit."""

    max_concurrency: int | None = None
    rate: float | None = None


class LeaseRequest(Payload):
    """What a process has and wants: calls under way, and as many as it could make now; `is_calling`: it makes any."""

    process: str
    limits: Limits
    in_use: int
    demand: int
    is_calling: bool


class LeaseGrant(Payload):
    """What a process may use for LEASE_SECONDS: calls at once, and calls a second. Where `target_slots` is below
    `slots`, others wait for theirs: as its calls end, it goes down to so many.
    """

    slots: int
    target_slots: int
    rate: float


class Allocation(Payload):
    """A process's share, and what it wants. In seconds of the workflow's clock: when it was `renewed_at`, and since
    when it has places, or wants some and has none.
    """

    slots: int = 0
    rate: float = 0.0
    demand: int = 0
    is_calling: bool = False
    renewed_at: Seconds = 0.0
    holding_since: Seconds = 0.0


class LimitsState(Payload):
    """The one object that `AgentLimits` takes."""

    allocations: dict[str, Allocation] = {}
