"""Tenants take turns at starting runs while several of them do."""

import asyncio
import time

from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.runs.start_limiter import StartLimiter


async def test_only_tenant_never_waits() -> None:
    limiter = StartLimiter()
    started_at = time.monotonic()
    taken = [await limiter.acquire("acme") for _ in range(500)]
    assert time.monotonic() - started_at < 0.5
    for permit in taken:
        permit.release()


async def test_run_of_another_tenant_goes_before_a_flood() -> None:
    limiter, served = StartLimiter(), []

    async def start(tenant: str) -> None:
        permit = await limiter.acquire(tenant)
        served.append(tenant)
        await asyncio.sleep(0.005)
        permit.release()
        permit.release()  # A second release is none.

    await start("globex")
    flood = [asyncio.create_task(start("acme")) for _ in range(100)]
    await asyncio.sleep(0.02)
    before = len(served)
    await start("globex")
    assert len(served) - before <= 5
    await asyncio.gather(*flood)
    assert served.count("acme") == 100


async def test_turn_without_an_answer_ends_by_itself() -> None:
    limiter = StartLimiter()
    for tenant in ("globex", "acme"):
        await limiter.acquire(tenant)
    started_at = time.monotonic()
    await asyncio.wait_for(limiter.acquire("globex"), 1)
    assert 0.02 < time.monotonic() - started_at < 0.5


async def test_cancelled_start_leaves_its_turn_to_others() -> None:
    limiter = StartLimiter()
    for tenant in ("globex", "acme"):
        await limiter.acquire(tenant)
    waiting = [asyncio.create_task(limiter.acquire("acme")) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 1)
    assert isinstance(results[0], asyncio.CancelledError)
    assert not any(isinstance(one, BaseException) for one in results[1:])


async def test_limit_grows_while_starts_are_quick_and_falls_while_they_are_slow() -> None:
    async def number_at_once(limiter: StartLimiter) -> int:
        await limiter.acquire("globex")
        tasks = [asyncio.create_task(limiter.acquire("acme")) for _ in range(100)]
        await asyncio.sleep(0.01)
        count = 1 + sum(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.06)
        return count

    limiter = StartLimiter()
    await limiter.acquire("globex")
    await asyncio.sleep(0.06)
    for _ in range(200):
        limiter.record(0.005)
    assert await number_at_once(limiter) > 10
    for _ in range(50):
        limiter.record(0.05)
    assert await number_at_once(limiter) == 2


async def test_start_that_waits_too_long_is_refused_and_the_others_go_on() -> None:
    limiter = StartLimiter(max_wait_seconds=0.12)
    await limiter.acquire("acme")
    starts = await asyncio.gather(*(limiter.acquire("globex") for _ in range(20)), return_exceptions=True)
    refused = [one for one in starts if isinstance(one, ProblemError)]
    assert {problem.problem_type for problem in refused} == {ProblemType.OVERLOADED}
    assert 0 < len(refused) < 20
    await asyncio.wait_for(limiter.acquire("acme"), 1)
