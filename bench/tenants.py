"""Suites of two tenants: what one of them has of its own work while the other floods the gateway."""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.http_load import HttpClient, bearer
from bench.sevenfold import BODY, Sevenfold
from bench.suite import Aim, Suite, p95
from sevenfold.contracts.access.api_keys import generate_key

JOBS = 5_000
SENDERS = 16  # connections of the flooding tenant
SINGLE_JOBS = 15
QUERIES = 150

TIMES = " \N{MULTIPLICATION SIGN}"


KEYS = {name: generate_key() for name in ("default", "acme", "globex")}
CONFIG = "\n".join(
    f'[[tenants.{name}.keys]]\nid = "{key.key_id}"\nhash = "{key.hash}"\nscopes = ["runs:write", "runs:read"]'
    for name, key in KEYS.items()
)


@asynccontextmanager
async def _tenant(sevenfold: Sevenfold, name: str) -> AsyncIterator[HttpClient]:
    """A client with the key of a tenant."""
    client = HttpClient(sevenfold.ports.http, bearer(KEYS[name].text))
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _flood(
    send: Callable[[], Awaitable[Any]], count: int | None = None
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Sends from SENDERS connections while the block runs, or `count` times."""
    left = count

    async def sender() -> None:
        nonlocal left
        while left is None or left > 0:
            if left is not None:
                left -= 1
            await send()

    senders = [asyncio.create_task(sender()) for _ in range(SENDERS)]
    try:
        yield senders
    finally:
        for one in senders:
            one.cancel()
        await asyncio.gather(*senders, return_exceptions=True)


async def _start_milliseconds(client: HttpClient) -> float:
    """Sends one job and returns the time until its agent was asked."""
    sent = time.time()
    accepted = await client.post("/api/agent/jobs", b'{"task": "x", "agent": "telling"}')
    async with asyncio.timeout(120):
        while True:
            job = await client.get(f"/api/agent/runs/{accepted['jobId']}")
            if job["status"] == "completed":
                break
            await asyncio.sleep(0.1)
    return float(job["result"]["data"]["done"] - sent) * 1000


async def _single_jobs(client: HttpClient) -> float:
    found = []
    for _ in range(SINGLE_JOBS):
        found.append(await _start_milliseconds(client))
        await asyncio.sleep(0.1)
    return statistics.median(found)


async def _job_beside_jobs(sevenfold: Sevenfold, work: Path) -> list[float]:
    async with _tenant(sevenfold, "acme") as acme, _tenant(sevenfold, "globex") as globex:
        idle = await _single_jobs(globex)

        async def send() -> None:
            await acme.post("/api/agent/jobs", b'{"task": "x", "agent": "second"}')

        async with _flood(send, JOBS) as senders:
            await asyncio.gather(*senders)  # all are accepted, and most of them wait
            beside = await _single_jobs(globex)
        return [beside / idle, idle, beside]


JOB_BESIDE_JOBS = Suite(
    "tenant-jobs",
    [
        Aim(f"start of a tenant's single job beside {JOBS:,} jobs of another, against idle", TIMES, 2, digits=2),
        Aim("the start, idle", " ms", digits=1),
        Aim("the start, beside them", " ms", digits=1),
    ],
    _job_beside_jobs,
    # 25 jobs a second: the slots are scarce, not the machine.
    {"SEVENFOLD_MAX_CONCURRENT_CALLS": "25"},
    config=CONFIG,
    api_key=KEYS["default"].text,
    rounds=1,  # what one leaves in the queue would be in the way of the next
)


def _query_suite(key: str, agent: str) -> Suite:
    """A flood of queries to an agent, and the queries of another tenant to the same agent meanwhile."""
    body = json.dumps({**json.loads(BODY), "agent": agent}).encode()

    async def queries(client: HttpClient) -> float:
        found = []
        for _ in range(QUERIES):
            start = time.perf_counter()
            await client.post("/api/agent/query", body)
            found.append((time.perf_counter() - start) * 1000)
            await asyncio.sleep(0.01)
        return p95(found)

    async def round_of(sevenfold: Sevenfold, work: Path) -> list[float]:
        answered = 0
        async with _tenant(sevenfold, "acme") as acme, _tenant(sevenfold, "globex") as globex:
            idle = await queries(globex)

            async def send() -> None:
                nonlocal answered
                await acme.post("/api/agent/query", body)
                answered += 1

            async with _flood(send):
                await asyncio.sleep(1)
                answered, start = 0, time.perf_counter()
                beside = await queries(globex)
                rate = answered / (time.perf_counter() - start)
        return [beside / idle, idle, beside, rate]

    aims = [
        Aim(f"p95 of a tenant's query beside another's flood, agent `{agent}`, against idle", TIMES, 2, digits=2),
        Aim("the p95, idle", " ms", digits=1),
        Aim("the p95, beside the flood", " ms", digits=1),
        Aim("the flood meanwhile", " queries/s"),
    ]
    return Suite(key, aims, round_of, config=CONFIG, api_key=KEYS["default"].text)


QUERY_BESIDE_QUERIES = _query_suite("tenant-queries", "instant")
SLOW_QUERY_BESIDE_QUERIES = _query_suite("tenant-slow-queries", "fifty")
