"""Divides limits between the processes that call. Pure functions of the request, the state and the time."""

from collections.abc import Callable, Iterable
from operator import floordiv, truediv
from typing import TypeVar

from sevenfold.contracts.agents.limits import LEASE_SECONDS, Allocation, LeaseGrant, LeaseRequest, LimitsState

Number = TypeVar("Number", int, float)

# With fewer slots than processes that have demand, each process holds a slot for this long.
_TIME_SLICE_SECONDS = 2.0

# The share of a process grows with its calls: it has a quarter more than it made.
_HEADROOM = 1.25

_PART_OF_BURST = 0.5
_ROUNDING = 1e-6


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
    taken, wait_seconds = _take_tokens(request, tokens)
    tokens -= taken
    allocation = Allocation(
        slots=slots,
        rate=rate,
        demand=request.demand,
        is_calling=request.is_calling,
        renewed_at=now,
        holding_since=own.holding_since if (slots > 0) == (own.slots > 0) and request.demand else now,
        tokens=request.tokens + granted if request.is_calling else 0.0,
        calls_per_second=request.calls_per_second,
    )
    grant = LeaseGrant(
        slots=slots,
        target_slots=target,
        rate=rate,
        tokens=granted + taken,
        max_tokens=max_tokens,
        wait_seconds=wait_seconds,
    )
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
    """Returns the tokens that remain, those that the process gets or gives back, and how many it may collect."""
    limits = request.limits
    if limits.rate is None:
        return tokens, 0.0, 1.0
    if not request.is_calling:
        return min(limits.burst, tokens + request.tokens), 0.0, 1.0
    # A part of the burst is kept for a process that joins, which has no share yet.
    max_tokens = max(1.0, _PART_OF_BURST * limits.burst * max(rate, limits.rate / 2) / limits.rate)
    granted = min(max(0.0, tokens), max_tokens - request.tokens)
    return tokens - granted, granted, max_tokens


def _take_tokens(request: LeaseRequest, tokens: float) -> tuple[float, float]:
    """Returns what a process takes at once, and how long it has to wait if there is no token. A batch may take more
    than there are: the debt delays those that follow.
    """
    if not request.wanted or request.limits.rate is None:
        return 0.0, 0.0
    if tokens >= 1 - _ROUNDING:
        return request.wanted, 0.0
    return 0.0, (1 - tokens) / request.limits.rate


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
        remaining, parts = _max_min_fair_part(limit, request.demand, demand.values(), floordiv)
        target = min(request.demand, -(-remaining // parts))
    return max(request.in_use, min(free, target)), target


def _time_slice_is_over(own: Allocation, underserved: list[Allocation], now: float) -> bool:
    """Whether the process yields its slots: there are fewer slots than processes with demand."""
    if own.slots:
        return now - own.holding_since >= _TIME_SLICE_SECONDS
    return any(not other.slots and other.holding_since < own.holding_since for other in underserved)


def _max_min_fair_part(
    limit: Number, own: Number, others: Iterable[Number], divide: Callable[[Number, int], Number]
) -> tuple[Number, int]:
    """Max-min fair allocation: returns what those who want less than `own` leave, and between how many it is divided,
    this one included.
    """
    wanted = sorted(others)
    remaining, parts = limit, len(wanted) + 1
    for other in wanted:
        if other > own:
            break
        remaining -= min(other, divide(remaining, parts))
        parts -= 1
    return remaining, parts


def _rate_share(request: LeaseRequest, others: dict[str, Allocation]) -> float:
    """Returns the calls per second that the process may start: what it would make, as far as the others leave it,
    and an equal part of what nobody would.
    """
    limit = request.limits.rate
    if limit is None or not request.is_calling:
        return 0.0
    free = max(0.0, limit - sum(allocation.rate for allocation in others.values()))
    least = limit / 10
    wanted = [max(least, one.calls_per_second * _HEADROOM) for one in others.values() if one.is_calling]
    own = max(least, request.calls_per_second * _HEADROOM)
    remaining, parts = _max_min_fair_part(limit, own, wanted, truediv)
    unused = max(0.0, limit - own - sum(wanted))
    return min(free, min(own, remaining / parts) + unused / (len(wanted) + 1))
