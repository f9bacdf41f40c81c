"""Concurrency and rate limits of one agent, divided between the processes that call it."""

from datetime import timedelta

from temporalio import workflow

from sevenfold.contracts.agents.limits import LEASE_SECONDS, Allocation, LeaseGrant, LeaseRequest, Limits, LimitsState

_IDLE_TIMEOUT = timedelta(seconds=3 * LEASE_SECONDS)

# With fewer slots than processes that have demand, each process holds a slot for this long.
_TIME_SLICE_SECONDS = 2.0


@workflow.defn(name="AgentLimits")
class AgentLimits:
    """Starts with the first process that calls a limited agent and completes after three lease periods without a
    renewal.
    """

    @workflow.init
    def __init__(self, state: LimitsState) -> None:
        self._allocations = dict(state.allocations)
        self._request_count = 0

    @workflow.run
    async def run(self, state: LimitsState) -> None:
        """Serves `renew_lease` until no process renews."""
        seen = -1
        while seen != self._request_count:
            seen = self._request_count
            try:
                await workflow.wait_condition(workflow.info().is_continue_as_new_suggested, timeout=_IDLE_TIMEOUT)
            except TimeoutError:
                continue
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(LimitsState(allocations=self._allocations))
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.update(name="renew_lease", description="Renews a process's share of the limits.")
    def renew_lease(self, request: LeaseRequest) -> LeaseGrant:
        """Returns the process's share, which expires after `LEASE_SECONDS` unless it is renewed."""
        self._request_count += 1
        grant, self._allocations = allocate(request, self._allocations, workflow.now().timestamp())
        self._set_details(request.limits)
        return grant

    def _set_details(self, limits: Limits) -> None:
        lines = [
            f"- {process}: {one.slots} concurrent calls, {one.rate:.3g} calls/s, demand {one.demand}"
            for process, one in sorted(self._allocations.items())
        ]
        workflow.set_current_details(
            f"Limits: {limits.max_concurrency or 'unlimited'} concurrent calls, "
            f"{limits.rate or 'unlimited'} calls/s.\n\n" + "\n".join(lines)
        )


def allocate(
    request: LeaseRequest, allocations: dict[str, Allocation], now: float
) -> tuple[LeaseGrant, dict[str, Allocation]]:
    """Returns the grant of one process, and the allocations of all processes after it. `now` in seconds."""
    others = {
        process: allocation
        for process, allocation in allocations.items()
        if process != request.process and now - allocation.renewed_at < LEASE_SECONDS
    }
    own = allocations.get(request.process, Allocation(holding_since=now))
    slots, target = _slot_share(request, own, others, now)
    rate = _rate_share(request, others)
    holding_since = own.holding_since if (slots > 0) == (own.slots > 0) and request.demand else now
    allocation = Allocation(
        slots=slots,
        rate=rate,
        demand=request.demand,
        is_calling=request.is_calling,
        renewed_at=now,
        holding_since=holding_since,
    )
    return LeaseGrant(slots=slots, target_slots=target, rate=rate), {**others, request.process: allocation}


def _slot_share(request: LeaseRequest, own: Allocation, others: dict[str, Allocation], now: float) -> tuple[int, int]:
    """Returns the concurrent calls that the process may make, and the number that it should shrink to."""
    limit = request.limits.max_concurrency
    if limit is None:
        return 0, 0
    free = max(0, limit - sum(allocation.slots for allocation in others.values()))
    demand = {process: allocation.demand for process, allocation in others.items() if allocation.demand}
    underserved = [allocation for allocation in others.values() if allocation.demand > allocation.slots]
    if not underserved:
        # No other process lacks slots, so this one may hold more than it needs now.
        target = min(limit, max(request.demand, limit // (1 + len(demand))))
    elif limit <= len(demand):
        target = 0 if _time_slice_is_over(own, underserved, now) else min(1, request.demand)
    else:
        target = _max_min_fair_share(limit, request.demand, list(demand.values()))
    return max(request.in_use, min(free, target)), target


def _time_slice_is_over(own: Allocation, underserved: list[Allocation], now: float) -> bool:
    """Whether the process yields its slots: there are fewer slots than processes with demand."""
    if own.slots:
        return now - own.holding_since >= _TIME_SLICE_SECONDS
    return any(not other.slots and other.holding_since < own.holding_since for other in underserved)


def _max_min_fair_share(limit: int, demand: int, others: list[int]) -> int:
    """Max-min fair allocation."""
    remaining, parts = limit, len(others) + 1
    for other in sorted(others):
        if other > demand:
            break
        remaining -= min(other, remaining // parts)
        parts -= 1
    return min(demand, -(-remaining // parts))


def _rate_share(request: LeaseRequest, others: dict[str, Allocation]) -> float:
    """Returns the calls per second that the process may start."""
    limit = request.limits.rate
    if limit is None:
        return 0.0
    free = max(0.0, limit - sum(allocation.rate for allocation in others.values()))
    calling = 1 + sum(allocation.is_calling for allocation in others.values())
    return min(free, limit / calling) if request.is_calling else 0.0
