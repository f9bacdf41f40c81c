"""Limits of an agent, or of a tenant's or key's rate, and their allocation to processes.

The sum of all allocations never exceeds the limits.
"""

from sevenfold.contracts.payload import Payload, Seconds

# A process that has not renewed for this long counts as dead, and its share is reallocated.
LEASE_SECONDS = 10.0


def limits_workflow_id(agent: str) -> str:
    """Returns the workflow id of an agent's limits."""
    return f"limits:{agent}"


class Limits(Payload):
    """Limits over all processes; None is unlimited. `rate`: calls per second; `burst`: calls that may start at the
    same time after a pause, in addition to those that the rate permits.
    """

    max_concurrency: int | None = None
    rate: float | None = None
    burst: float = 1.0


class LeaseRequest(Payload):
    """A process's renewal: its calls in flight, the calls that it could make now, whether it makes calls at all, and
    the tokens of its rate. A process that makes no calls gives these tokens back; a negative number is a debt.
    `wanted`: tokens that it takes at once, without a share of the rate. `calls_per_second`: how many calls it would
    make.
    """

    process: str
    limits: Limits
    in_use: int = 0
    demand: int = 0
    is_calling: bool = False
    tokens: float = 0.0
    wanted: float = 0.0
    calls_per_second: float = 0.0


class LeaseGrant(Payload):
    """What a process may use for LEASE_SECONDS: concurrent calls, and calls per second. If `target_slots` is below
    `slots`, other processes wait for slots: the process returns slots as its calls end, down to the target.

    `tokens`: what is added to the process's own, or removed if negative; `max_tokens`: how many it may collect.
    `wait_seconds`: of a refused `wanted`, when there is a token.
    """

    slots: int
    target_slots: int
    rate: float
    tokens: float = 0.0
    max_tokens: float = 1.0
    wait_seconds: float = 0.0


class Allocation(Payload):
    """A process's share and demand. `renewed_at`: time of the last renewal. `holding_since`: since when it has slots,
    or waits without any. Both in seconds of the workflow's clock. `tokens`: what it had after the renewal.
    """

    slots: int = 0
    rate: float = 0.0
    demand: int = 0
    is_calling: bool = False
    renewed_at: Seconds = 0.0
    holding_since: Seconds = 0.0
    tokens: float = 0.0
    calls_per_second: float = 0.0


class LimitsState(Payload):
    """State of `AgentLimits`, and its input: the shares of the processes, and the tokens of the rate that no process
    has, as they were at `refilled_at`. None: as many as the burst permits.
    """

    allocations: dict[str, Allocation] = {}
    tokens: float | None = None
    refilled_at: Seconds = 0.0
