"""Suites of jobs with many items: how fast they go through, and what becomes of a fresh query meanwhile."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.agents import fifty
from bench.http_load import HttpClient
from bench.sevenfold import Sevenfold
from bench.suite import Aim, Suite, p95

CONCURRENCY = 100
POLL = 0.05  # seconds between two looks at a job
JOB_LIMIT = 120.0  # seconds: a job that takes longer is stuck

MANY = 10_000
SOME = 1_000
IDLE_QUERIES = 100
MIN_QUERIES = 20  # a p95 over fewer means nothing

TIMES = " \N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class JobTime:
    """Seconds from before `POST /jobs` until the job was seen as completed, and until the run had closed."""

    seen: float
    closed: float


async def run_job(connection: HttpClient, agent: str, items: int, poll: float = POLL) -> JobTime:
    """Send one job and come back for it until it is completed; raise `RuntimeError` if an item failed."""
    body = {"task": "x", "agent": agent, "data": {"items": list(range(items))}, "concurrency": CONCURRENCY}
    message = json.dumps(body).encode()
    wall, start = time.time(), time.perf_counter()
    job = (await connection.post("/api/agent/jobs", message))["jobId"]
    async with asyncio.timeout(JOB_LIMIT):
        while True:
            state = await connection.get(f"/api/agent/jobs/{job}")
            if state["status"] not in ("queued", "processing"):
                break
            await asyncio.sleep(poll)
    seen = time.perf_counter() - start
    if state["status"] != "completed" or state["progress"]["completed"] != items:
        raise RuntimeError(f"the job ended as {state['status']}: {state['progress']} {state.get('error')}")
    run = await connection.get(f"/api/agent/runs/{job}")
    return JobTime(seen, datetime.fromisoformat(run["closedAt"]).timestamp() - wall)


async def _throughput(sevenfold: Sevenfold, work: Path) -> list[float]:
    job = await run_job(sevenfold.http_client, "instant", MANY)
    return [MANY / job.seen, MANY / job.closed]


THROUGHPUT = Suite(
    "items",
    [
        Aim(f"{MANY:,} items, instant agent, until seen as completed", " items/s", 1_500, less=False),
        Aim("the same, until the run had closed", " items/s"),
    ],
    _throughput,
)


async def _against_loop(sevenfold: Sevenfold, work: Path) -> list[float]:
    loop = await _semaphore_loop(fifty)
    job = await run_job(sevenfold.http_client, "fifty", SOME)
    return [job.seen / loop, job.closed / loop, loop * 1000]


async def _semaphore_loop(agent: Callable[[Any], Awaitable[str]]) -> float:
    """Return the seconds that anybody's own loop over the items would take."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(item: int) -> None:
        async with slots:
            await agent(item)

    start = time.perf_counter()
    await asyncio.gather(*(one(item) for item in range(SOME)))
    return time.perf_counter() - start


AGAINST_LOOP = Suite(
    "items-50ms",
    [
        Aim(f"{SOME:,} items of 50 ms, {CONCURRENCY} at once, against an asyncio loop", TIMES, 1.4, digits=2),
        Aim("the same, until the run had closed", TIMES, digits=2),
        Aim("the asyncio loop itself", " ms"),
    ],
    _against_loop,
)


async def _query_beside_job(sevenfold: Sevenfold, work: Path) -> list[float]:
    idle = [await _query(sevenfold) for _ in range(IDLE_QUERIES)]
    # Looked at seldom: the looks are not what the queries shall compete with.
    job = asyncio.create_task(run_job(sevenfold.http_client, "twenty", MANY, poll=0.5))
    busy: list[float] = []
    try:
        await asyncio.sleep(0.3)  # the job has been accepted and its first chunks are in work
        while not job.done():
            busy.append(await _query(sevenfold))
        seconds = (await job).seen
    finally:
        job.cancel()
    if len(busy) < MIN_QUERIES:
        raise RuntimeError(f"only {len(busy)} queries were answered while the job ran")
    return [p95(busy) / p95(idle), p95(idle), p95(busy), MANY / seconds]


async def _query(sevenfold: Sevenfold) -> float:
    start = time.perf_counter()
    await sevenfold.query()
    return (time.perf_counter() - start) * 1000


QUERY_BESIDE_JOB = Suite(
    "query-beside-job",
    [
        Aim(f"p95 of a fresh query beside a job of {MANY:,} items of 20 ms, against idle", TIMES, 3, digits=2),
        Aim("p95 of a fresh query, idle", " ms", digits=1),
        Aim("p95 of a fresh query, beside the job", " ms", digits=1),
        Aim("that job meanwhile", " items/s"),
    ],
    _query_beside_job,
)
