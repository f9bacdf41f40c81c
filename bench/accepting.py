"""The suite of accepting jobs: `POST /jobs` against `client.start_workflow` of a minimal workflow, same server."""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from temporalio.client import Client

from bench.bare_client import bare_worker
from bench.bare_workflow import Bare
from bench.harness import quiet
from bench.sevenfold import Sevenfold
from bench.suite import Aim, Suite, p95

IN_FLIGHT = 20
JOBS = 200
WARM_UP = 20
BODY = json.dumps({"task": "x", "agent": "instant", "data": {"items": ["a"]}}).encode()


async def _accepting(sevenfold: Sevenfold, work: Path) -> list[float]:
    """Give both their turn, each from the first request until the last run has ended."""
    address = f"127.0.0.1:{sevenfold.ports.temporal}"
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    client = await Client.connect(address)

    async def ours() -> str:
        accepted = await sevenfold.http_client.post("/api/agent/jobs", BODY)
        if accepted["status"] != "queued":
            raise RuntimeError(f"POST /jobs answered {accepted!r}")
        return f"default:{accepted['jobId']}"

    async def bare() -> str:
        handle = await client.start_workflow(Bare.run, "hi", id=str(uuid.uuid4()), task_queue=queue)
        return handle.id

    async with bare_worker(address, queue, work):
        turns = {}
        # in either order, since the second finds a fuller database
        for name, start in random.sample([("ours", ours), ("bare", bare)], 2):
            await _turn(client, start, WARM_UP)
            await quiet(timeout_seconds=20)
            turns[name] = await _turn(client, start, JOBS)
            await quiet(timeout_seconds=20)
    (our_rate, our_p95), (bare_rate, bare_p95) = turns["ours"], turns["bare"]
    return [our_rate / bare_rate, our_rate, bare_rate, bare_p95 / our_p95, our_p95, bare_p95]


async def _turn(client: Client, start: Callable[[], Awaitable[str]], number: int) -> tuple[float, float]:
    """Return runs per second from the first start to the last end, and the p95 of a start in milliseconds."""
    slots = asyncio.Semaphore(IN_FLIGHT)
    durations: list[float] = []

    async def accepted() -> str:
        async with slots:
            started_at = time.perf_counter()
            run = await start()
            durations.append(time.perf_counter() - started_at)
            return run

    started_at = time.perf_counter()
    runs = await asyncio.gather(*(accepted() for _ in range(number)))
    for run in runs:
        await client.get_workflow_handle(run).result()
    return number / (time.perf_counter() - started_at), p95(durations) * 1000


ACCEPTING = Suite(
    "accept",
    [
        Aim(
            f"jobs sustained to their end per second, {IN_FLIGHT} starts in flight, against the bare client",
            " \N{MULTIPLICATION SIGN}",
            0.85,
            less=False,
            digits=2,
        ),
        Aim("jobs", "/s"),
        Aim("runs of the bare client", "/s"),
        Aim(
            "p95 of accepting: the bare client's against ours", " \N{MULTIPLICATION SIGN}", 0.85, less=False, digits=2
        ),
        Aim("p95 of accepting a job", " ms", digits=1),
        Aim("p95 of a start of the bare client", " ms", digits=1),
    ],
    _accepting,
)
