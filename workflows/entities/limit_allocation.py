"""Divides limits between the processes that call. Pure functions of the request, the state and the time."""

from sevenfold.contracts.agents.limits import LEASE_SECONDS, Allocation, LeaseGrant, LeaseRequest, LimitsState

# With fewer slots than processes that have demand, each process holds a slot for this long.
_TIME_SLICE_SECONDS = 2.0


def allocate(request: LeaseRequest, state: LimitsState, now: float) -> tuple[LeaseGrant, LimitsState]:
    """Returns the grant of one process, and the state after it. `now` in seconds."""
    tokens = _refill(request, state, now)
    others = {
        process: allocation
        for process, allocation in state.allocations.items()
        if process != request.process and now - allocation.renewed_at < LEASE_SECONDS
    }
    own = state.allocations.get(request.process, Allocation(holding_since=now))
    slots, target = _slot_share(request, own, others, now)
    rate = _rate_share(request, others)
    tokens, granted, max_tokens = _share_tokens(request, tokens, rate)
    allocation = Allocation(
        slots=slots,
        rate=rate,
        demand=request.demand,
        is_calling=request.is_calling,
        renewed_at=now,
        holding_since=own.holding_since if (slots > 0) == (own.slots > 0) and request.demand else now,
        tokens=request.tokens + granted if request.is_calling else 0.0,
    )
    grant = LeaseGrant(slots=slots, target_slots=target, rate=rate, tokens=granted, max_tokens=max_tokens)
    allocations = {**others, request.process: allocation}
    return grant, LimitsState(allocations=allocations, tokens=tokens, refilled_at=now)


def seconds_until_full(request: LeaseRequest, state: LimitsState) -> float:
    """Returns in which time the tokens are as many as the burst, if no process calls: only then may they be
    forgotten.
    """
    if not request.limits.rate or state.tokens is None:
        return 0.0
    held = sum(one.tokens for one in state.allocations.values())
    return max(0.0, request.limits.burst - state.tokens - min(0.0, held)) / request.limits.rate


def _refill(request: LeaseRequest, state: LimitsState, now: float) -> float:
    """Returns the tokens that no process has. The part of the rate that no process had has refilled them. Those of a
    process whose lease has expired are given back as it reported them last.
    """
    rate, burst = request.limits.rate, request.limits.burst
    if rate is None or state.tokens is None:
        return burst
    added = rate * (now - state.refilled_at)
    for allocation in state.allocations.values():
        expires_at = allocation.renewed_at + LEASE_SECONDS
        added -= allocation.rate * max(0.0, min(now, expires_at) - state.refilled_at)
        if expires_at <= now:
            added += allocation.tokens
    return min(burst, state.tokens + added)


def _share_tokens(request: LeaseRequest, tokens: float, rate: float) -> tuple[float, float, float]:
    """Returns the tokens that remain, those that the process gets, and how many it may collect."""
    limits = request.limits
    if limits.rate is None:
        return tokens, 0.0, 1.0
    if not request.is_calling:
        return min(limits.burst, tokens + request.tokens), 0.0, 1.0
    max_tokens = max(1.0, limits.burst * rate / limits.rate)
    granted = max(0.0, min(tokens, max_tokens - request.tokens))
    return tokens - granted, granted, max_tokens


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
