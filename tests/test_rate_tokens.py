"""The tokens of a rate: all processes together have the rate and one burst, however they come and go."""

import asyncio
import random
import time

import pytest

from sevenfold.adapters.agents.admission.quota_lease import QuotaLease
from sevenfold.contracts.agents.errors import AgentBusy
from sevenfold.contracts.agents.limits import LEASE_SECONDS, LeaseGrant, LeaseRequest, Limits, LimitsState
from sevenfold.workflows.entities.limit_allocation import allocate, seconds_until_full

TEN_AN_HOUR = Limits(rate=10 / 3_600, burst=5.0)


class Process:
    """A lease at simulated times, which uses every token that it has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokens = self.rate = self.max_tokens = 0.0
        self.refilled_at = self.expires_at = 0.0
        self.used = 0

    def use(self, now: float) -> None:
        until = min(now, self.expires_at)
        self.tokens = min(self.max_tokens, self.tokens + max(0.0, until - self.refilled_at) * self.rate)
        self.refilled_at = max(now, self.refilled_at)
        while self.tokens >= 1 and now < self.expires_at:
            self.tokens -= 1
            self.used += 1

    def request(self, limits: Limits, now: float, *, is_calling: bool) -> LeaseRequest:
        if now >= self.expires_at:
            self.tokens = 0.0
        return LeaseRequest(
            process=self.name, limits=limits, in_use=0, demand=1, is_calling=is_calling, tokens=self.tokens
        )

    def take(self, grant: LeaseGrant, now: float) -> None:
        self.tokens = min(grant.max_tokens, self.tokens + grant.tokens)
        self.rate, self.max_tokens = grant.rate, grant.max_tokens
        self.refilled_at, self.expires_at = now, now + LEASE_SECONDS - 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("limits", [TEN_AN_HOUR, Limits(rate=20.0, burst=20.0)], ids=["10/h", "20/s"])
def test_processes_that_come_and_go_have_the_rate_and_one_burst(limits: Limits, seed: int) -> None:
    """A live process gives its lease back before it expires; a killed one may have used what it reported last."""
    chance = random.Random(seed)
    processes = [Process(name) for name in "abc"]
    state, now, kills = LimitsState(), 0.0, 0
    for _ in range(1_000):
        now += chance.uniform(0.1, 1.0)
        for one in processes:
            one.use(now)
            if one.rate and one.expires_at - now < 2:
                if chance.random() < 0.05:
                    kills += 1
                else:
                    _, state = allocate(one.request(limits, now, is_calling=False), state, now)
                one.tokens = one.rate = one.expires_at = 0.0
        one = chance.choice(processes)
        if chance.random() < 0.5:
            grant, state = allocate(one.request(limits, now, is_calling=True), state, now)
            one.take(grant, now)
            one.use(now)
    assert limits.rate is not None
    used = sum(one.used for one in processes)
    assert used <= limits.rate * now + max(limits.burst, len(processes)) + kills * limits.burst
    assert used >= 0.3 * limits.rate * now, "and they have a good part of it"


def test_tokens_of_a_killed_process_are_given_back_when_its_lease_expires() -> None:
    killed, other = Process("killed"), Process("other")
    grant, state = allocate(killed.request(TEN_AN_HOUR, 0, is_calling=True), LimitsState(), 0)
    assert grant.tokens == 5
    early, _ = allocate(other.request(TEN_AN_HOUR, 5, is_calling=True), state, 5)
    assert early.tokens == 0
    late, _ = allocate(other.request(TEN_AN_HOUR, 11, is_calling=True), state, 11)
    assert late.tokens == pytest.approx(5, abs=0.1)


def test_a_debt_is_given_back_too() -> None:
    """A large batch of events is admitted as a whole and delays those that follow, in every process."""
    owing = LeaseRequest(process="a", limits=TEN_AN_HOUR, in_use=0, demand=0, is_calling=False, tokens=-20)
    _, state = allocate(owing, LimitsState(), 0)
    assert state.tokens == -15
    assert seconds_until_full(owing, state) == pytest.approx(20 * 360)
    grant, _ = allocate(Process("b").request(TEN_AN_HOUR, 1, is_calling=True), state, 1)
    assert grant.tokens == 0


async def test_a_process_that_returns_gets_no_second_burst() -> None:
    state = LimitsState()

    async def request_lease(request: LeaseRequest) -> LeaseGrant:
        nonlocal state
        grant, state = allocate(request, state, time.monotonic())
        return grant

    busy, resting = (QuotaLease(name, TEN_AN_HOUR, request_lease, join_seconds=0) for name in "ab")
    admitted = {"busy": 0, "resting": 0}

    async def send(name: str, lease: QuotaLease, count: int) -> None:
        for _ in range(count):
            try:
                await lease.acquire("acme", 0.1 if lease.is_live else 1.0)
            except AgentBusy:
                continue
            lease.release(0.0)
            admitted[name] += 1

    await send("resting", resting, 7)
    for _ in range(12):  # The other's lease is given back meanwhile.
        await send("busy", busy, 1)
        await asyncio.sleep(1)
    await send("resting", resting, 7)
    assert 5 <= sum(admitted.values()) <= 6, admitted
    await asyncio.gather(busy.aclose(), resting.aclose())
