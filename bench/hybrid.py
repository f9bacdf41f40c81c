"""The suite of the hybrid endpoint: its cost beside the synchronous one, and the time of its choice."""

import asyncio
import statistics
import time
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from bench.sevenfold import BODY, Sevenfold
from bench.suite import Aim, Suite, p95
from sevenfold.adapters.temporal.durations import Durations, TaskKind
from sevenfold.contracts.runs.hybrid import Estimate, EstimateBasis, choose_route

CALLS = 150
CHOICES = 2_000

TIMES = " \N{MULTIPLICATION SIGN}"


async def _hybrid(sevenfold: Sevenfold, work: Path) -> list[float]:
    for _ in range(10):
        await _timed(sevenfold, "/api/agent/hybrid")
    queries, hybrids = [], []
    for _ in range(CALLS):  # in turn, so that whatever the machine does meets both
        queries.append(await _timed(sevenfold, "/api/agent/query"))
        hybrids.append(await _timed(sevenfold, "/api/agent/hybrid"))
    choices = await _choices(sevenfold)
    query, hybrid = statistics.median(queries), statistics.median(hybrids)
    return [hybrid / query, query, hybrid, p95(choices)]


async def _timed(sevenfold: Sevenfold, path: str) -> float:
    start = time.perf_counter()
    answer = await sevenfold.http_client.post(path, BODY)
    if answer.get("response") != "ok":
        raise RuntimeError(f"Sevenfold answered {answer!r}")
    return (time.perf_counter() - start) * 1000


async def _choices(sevenfold: Sevenfold) -> list[float]:
    """The time in ms of a choice with the durations cached."""
    client = await Client.connect(f"127.0.0.1:{sevenfold.ports.temporal}", data_converter=pydantic_data_converter)
    durations, asked = Durations(client, {}), TaskKind("default", "instant", "query")
    await asyncio.sleep(1)  # visibility lags
    found = []
    await durations.get_stats(asked)
    for _ in range(CHOICES):
        start = time.perf_counter()
        measured = await durations.get_stats(asked)
        choose_route(
            Estimate(
                basis=EstimateBasis.MEASURED,
                p50=measured.run_seconds,
                p95=measured.p95_seconds,
                runs=measured.run_count,
            ),
            5,
            stream=False,
        )
        found.append((time.perf_counter() - start) * 1000)
    return found


HYBRID = Suite(
    "hybrid",
    [
        Aim("a short answer by `/hybrid` against `/query`, p50", TIMES, 1.1, digits=2),
        Aim("p50 of `/query`", " ms", digits=1),
        Aim("p50 of `/hybrid`", " ms", digits=1),
        Aim("choosing the way, durations known, p95", " ms", 2, digits=3),
    ],
    _hybrid,
)
