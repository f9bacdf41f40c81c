"""Limits over several processes, without any: the real shares and the real division, at moments that rarely meet."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError

from sevenfold.adapters.agents.admission.quota_lease import QuotaLease
from sevenfold.contracts.agents.errors import AgentBusy
from sevenfold.contracts.agents.limits import LeaseGrant, LeaseRequest, Limits, LimitsState
from sevenfold.workflows.entities.limit_allocation import allocate
from tests.support.processes import until


class Limiter:
    """What the workflow does, with a server's delay before and after, and answers that can be lost."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.loses: Callable[[LeaseRequest], bool] = lambda _: False
        self.state = LimitsState()

    async def __call__(self, ask: LeaseRequest) -> LeaseGrant:
        await asyncio.sleep(self.delay)
        grant, self.state = allocate(ask, self.state, time.monotonic())
        await asyncio.sleep(self.delay)
        if self.loses(ask):
            raise WorkflowUpdateRPCTimeoutOrCancelledError
        return grant


class Calls:
    """Counts those under way."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def one(
        self, share: QuotaLease, seconds: float, timeout_seconds: float | None = None, tenant: str = "default"
    ) -> None:
        await share.acquire(tenant, timeout_seconds)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.now -= 1
            share.release(seconds)


def share(name: str, limiter: Callable[[LeaseRequest], Awaitable[LeaseGrant]], **limits: Any) -> QuotaLease:
    return QuotaLease(name, Limits(**limits), limiter)


async def closed(*shares: QuotaLease) -> None:
    await asyncio.gather(*(one.aclose() for one in shares))


async def test_burst_during_a_lease_renewal_stays_within_the_limit() -> None:
    limiter, calls = Limiter(delay=0.2), Calls()
    p, q = share("p", limiter, max_concurrency=10), share("q", limiter, max_concurrency=10)
    await calls.one(p, 0.1)  # p holds all of it, and is idle
    wanted = [asyncio.create_task(calls.one(q, 0.6)) for _ in range(20)]
    await asyncio.sleep(0.5)
    burst = [asyncio.create_task(calls.one(p, 0.6)) for _ in range(20)]
    await asyncio.gather(*wanted, *burst)
    assert calls.most <= 10
    await closed(p, q)


@pytest.mark.parametrize("limits", [{"max_concurrency": 10}, {"rate": 50.0}], ids=["concurrency", "rate"])
async def test_first_call_of_a_process_that_joins_waits_for_its_part(limits: dict[str, Any]) -> None:
    """The limits are with the other process and mostly unused: a refusal would be for nothing."""
    limiter, calls = Limiter(delay=0.02), Calls()
    p, q = share("p", limiter, **limits), share("q", limiter, **limits)
    first = asyncio.create_task(calls.one(p, 5))
    await asyncio.sleep(0.3)  # p has all of it
    await asyncio.gather(*(calls.one(q, 0.1, 1.0) for _ in range(3)))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await closed(p, q)


async def test_lost_lease_response_stays_within_the_limit() -> None:
    limiter, calls = Limiter(delay=0.02), Calls()
    p, q = share("p", limiter, max_concurrency=10), share("q", limiter, max_concurrency=10)
    await calls.one(p, 0.1)
    limiter.loses = lambda ask: ask.process == "p"
    wanted = [asyncio.create_task(calls.one(q, 0.3)) for _ in range(20)]
    for _ in range(10):
        await asyncio.sleep(0.3)
        burst = [asyncio.create_task(calls.one(p, 0.2)) for _ in range(10)]
        limiter.loses = lambda ask: False
    await asyncio.gather(*wanted, *burst)
    assert calls.most <= 10
    await closed(p, q)


async def test_all_slots_are_used_where_they_are_wanted() -> None:
    limiter, calls = Limiter(delay=0.01), Calls()
    shares = [share(name, limiter, max_concurrency=5) for name in "pqr"]
    work = [asyncio.create_task(calls.one(one, 0.1)) for one in shares for _ in range(60)]
    started_at = time.monotonic()
    await asyncio.gather(*work)
    assert calls.most == 5
    assert time.monotonic() - started_at < 2 * 180 * 0.1 / 5
    await closed(*shares)


async def test_fewer_slots_than_processes_rotate() -> None:
    limiter = Limiter(delay=0.01)
    shares = {name: share(name, limiter, max_concurrency=1) for name in "pqr"}
    done = dict.fromkeys(shares, 0)
    calls = Calls()

    async def busy(name: str) -> None:
        for _ in itertools.count():
            await calls.one(shares[name], 0.02)
            done[name] += 1

    running = [asyncio.create_task(busy(name)) for name in shares]
    await asyncio.sleep(14)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert calls.most == 1
    assert min(done.values()) > max(done.values()) / 4, done
    await closed(*shares.values())


async def test_rejected_calls_count_as_demand() -> None:
    """Long calls: none of those that come waits here, and the share grows all the same."""
    limiter, calls = Limiter(delay=0.01), Calls()
    p, q = share("p", limiter, max_concurrency=10), share("q", limiter, max_concurrency=10)
    idle = [asyncio.create_task(calls.one(q, 60)) for _ in range(1)]
    await asyncio.sleep(0.2)
    await calls.one(p, 1.0)  # calls are long, it learns
    running: list[asyncio.Task[None]] = []

    async def comes_and_comes() -> None:
        while True:
            try:
                await p.acquire("default", 0.5)
            except AgentBusy:
                await asyncio.sleep(0.2)
            else:
                running.append(asyncio.create_task(asyncio.sleep(60)))

    coming = asyncio.create_task(comes_and_comes())
    await until(lambda: len(running) >= 9, 20)
    await asyncio.sleep(0.5)
    coming.cancel()
    assert len(running) == 9
    for task in (*running, *idle):
        task.cancel()
    await asyncio.gather(*running, *idle, return_exceptions=True)
    for _ in running:
        p.release(1)
    await closed(p, q)


async def test_cancelled_waiter_loses_no_slot() -> None:
    limiter, calls = Limiter(), Calls()
    p = share("p", limiter, max_concurrency=1)
    await p.acquire("default", None)
    waiting = [asyncio.create_task(calls.one(p, 0.01, timeout_seconds=5)) for _ in range(3)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()  # and in the same pass of the loop the place becomes free
    p.release(0.1)
    assert isinstance((await asyncio.gather(*waiting, return_exceptions=True))[0], asyncio.CancelledError)
    assert p.try_acquire(), "no place is lost"
    p.release(0.1)
    await closed(p)


async def test_job_items_do_not_starve_single_calls() -> None:
    limiter, calls = Limiter(), Calls()
    p = share("p", limiter, max_concurrency=2)
    items = [asyncio.create_task(calls.one(p, 0.1)) for _ in range(100)]
    await asyncio.sleep(0.5)
    before = sum(item.done() for item in items)
    await calls.one(p, 0.1, timeout_seconds=10.0)
    assert sum(item.done() for item in items) - before <= 8, "it goes before most of the list"
    for item in items:
        item.cancel()
    await asyncio.gather(*items, return_exceptions=True)
    await closed(p)


async def test_flood_of_one_tenant_neither_delays_nor_refuses_another() -> None:
    """A call of the other tenant is the next but one, even where the flood itself is refused."""
    limiter, calls = Limiter(), Calls()
    p = share("p", limiter, max_concurrency=2)
    flood = [asyncio.create_task(calls.one(p, 0.1, timeout_seconds=30, tenant="acme")) for _ in range(60)]
    items = [asyncio.create_task(calls.one(p, 0.1, tenant="acme")) for _ in range(20)]
    await asyncio.sleep(0.5)
    with pytest.raises(AgentBusy) as busy:
        await p.acquire("acme", 1.0)
    started_at = time.monotonic()
    await calls.one(p, 0.1, timeout_seconds=1.0, tenant="globex")
    assert time.monotonic() - started_at < 0.7
    assert calls.most <= 2
    assert busy.value.retry_after is not None
    for task in (*flood, *items):
        task.cancel()
    await asyncio.gather(*flood, *items, return_exceptions=True)
    await closed(p)


async def test_first_call_at_a_low_rate_does_not_wait() -> None:
    p = share("p", Limiter(), rate=1 / 60)
    async with asyncio.timeout(10):
        await p.acquire("default", 10.0)
    with pytest.raises(AgentBusy) as raised:
        await p.acquire("default", 1.0)
    assert raised.value.retry_after is not None
    p.release_unused()
    assert p.try_acquire(), "a call that was not made has cost nothing"
    p.release(0.1)
    await closed(p)


async def test_renewal_task_ends_with_the_lease() -> None:
    async def never(_: LeaseRequest) -> LeaseGrant:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise WorkflowUpdateRPCTimeoutOrCancelledError from None  # as Temporal's client does
        raise AssertionError

    p = share("p", never, max_concurrency=1)
    waiting = asyncio.create_task(p.acquire("default", None))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        await closed(p)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
