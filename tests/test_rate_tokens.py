"""The tokens of a rate: all processes together have the rate and one burst, however they come and go."""

import asyncio
import random
import time

import pytest

from sevenfold.adapters.quotas.token_requests import TokenRequests
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
    limits = Limits(rate=0.01, burst=5.0)
    killed, other = Process("killed"), Process("other")
    grant, state = allocate(killed.request(limits, 0, is_calling=True), LimitsState(), 0)
    assert grant.tokens == 2.5, "a part is kept for those that join"
    taken, state = allocate(_taking(limits, 2.5), state, 5)
    refused, _ = allocate(_taking(limits, 1), state, 5)
    assert (taken.tokens, refused.tokens) == (2.5, 0)
    assert refused.wait_seconds == pytest.approx(100)
    late, _ = allocate(other.request(limits, 11, is_calling=True), state, 11)
    assert late.tokens >= 1.25


def _taking(limits: Limits, wanted: float) -> LeaseRequest:
    return LeaseRequest(process="t", limits=limits, in_use=0, demand=0, is_calling=False, wanted=wanted)


def test_a_debt_is_given_back_too() -> None:
    """A large batch of events is admitted as a whole and delays those that follow, in every process."""
    owing = LeaseRequest(process="a", limits=TEN_AN_HOUR, in_use=0, demand=0, is_calling=False, tokens=-20)
    _, state = allocate(owing, LimitsState(), 0)
    assert state.tokens == -15
    assert seconds_until_full(owing, state) == pytest.approx(20 * 360)
    grant, _ = allocate(Process("b").request(TEN_AN_HOUR, 1, is_calling=True), state, 1)
    assert grant.tokens == 0


class Server:
    """The workflow's state, and a request to it."""

    def __init__(self) -> None:
        self.state = LimitsState()
        self.requests = 0

    async def __call__(self, request: LeaseRequest) -> LeaseGrant:
        self.requests += 1
        await asyncio.sleep(0.01)
        grant, self.state = allocate(request, self.state, time.monotonic())
        return grant


async def test_steady_requests_at_a_low_rate_are_admitted_by_any_process() -> None:
    """Two processes in turns at exactly the rate, after both have used the burst."""
    server, limits = Server(), Limits(rate=4.0, burst=5.0)
    first, second = (TokenRequests(name, limits, server) for name in "ab")
    burst = [await one.take(1) for _ in range(4) for one in (first, second)]
    assert burst.count(0.0) in (5, 6)
    assert 0 < max(burst) <= 0.25
    await asyncio.sleep(0.3)
    steady = []
    for number in range(12):
        steady.append(await (first, second)[number % 2].take(1))
        await asyncio.sleep(0.25)
    assert steady == [0.0] * 12


async def test_a_flood_over_a_low_rate_asks_the_workflow_for_each_token_alone() -> None:
    server = Server()
    tokens = TokenRequests("a", TEN_AN_HOUR, server)
    waits = await asyncio.gather(*(tokens.take(1) for _ in range(500)))
    assert waits.count(0.0) == 5
    assert server.requests == 6
    await tokens.put_back(1)
    assert server.state.tokens == pytest.approx(1, abs=0.1)


async def test_requests_are_admitted_at_once_while_nobody_answers() -> None:
    async def unanswered(_: LeaseRequest) -> LeaseGrant:
        await asyncio.sleep(60)
        raise AssertionError

    tokens = TokenRequests("a", TEN_AN_HOUR, unanswered)
    async with asyncio.timeout(3):
        assert await asyncio.gather(*(tokens.take(1) for _ in range(50))) == [0.0] * 50


def test_a_busy_process_has_the_part_of_the_rate_that_it_uses() -> None:
    """One gets nine of ten requests, and has nine tenths of the rate soon."""
    limits = Limits(rate=10.0, burst=10.0)
    state, now = LimitsState(), 0.0
    rates = {"busy": 0.0, "idle": 0.0}
    for _ in range(10):
        for name, calls in (("idle", 0.9), ("busy", 8.0)):
            now += 1
            request = LeaseRequest(
                process=name, limits=limits, in_use=0, demand=0, is_calling=True, calls_per_second=calls
            )
            grant, state = allocate(request, state, now)
            rates[name] = grant.rate
    assert rates["busy"] >= 8.0
    assert rates["idle"] >= 0.9
    assert sum(rates.values()) <= 10.0 + 1e-6
