"""The suite of metrics: `/query` at 50 in flight beside the product without metrics, and the time of a scrape."""

import asyncio
import statistics
import sys
import time
from pathlib import Path

import httpx

from bench.harness import rate
from bench.keys import TIMES
from bench.sevenfold import Ports, Sevenfold, run_sevenfold
from bench.suite import Aim, Suite

_IN_FLIGHT, _SECONDS, _TURNS = 50, 4.0, 8
_STREAMS, _SCRAPES = 100, 20


async def _metrics(sevenfold: Sevenfold, work: Path) -> list[float]:
    bare_command = [sys.executable, "-m", "bench.without_metrics", "dev"]
    data = work / f"without-metrics-{time.monotonic_ns()}"
    ratios = []
    async with run_sevenfold(work, data, Ports.free(), command=bare_command) as bare:
        for one in (bare, sevenfold):
            await rate(one.query, _IN_FLIGHT, _SECONDS)  # warms it up
        for turn in range(_TURNS):
            # By turns, in changing order, so that whatever the machine does meets both.
            pair = (sevenfold, bare) if turn % 2 else (bare, sevenfold)
            rates = {id(one): await rate(one.query, _IN_FLIGHT, _SECONDS) for one in pair}
            ratios.append(rates[id(sevenfold)] / rates[id(bare)])
    return [statistics.median(ratios), await _scrape_beside_streams(sevenfold.ports.http)]


async def _scrape_beside_streams(port: int) -> float:
    """The median time of a scrape in ms while 100 streams are open, each with a chunk every 0.5 s."""
    limits = httpx.Limits(max_connections=_STREAMS + 5)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as http:

        async def read() -> None:
            params = {"seconds": 30, "chunks": 60}
            body = {"query": "hi", "agent": "simulator", "params": params}
            async with http.stream("POST", "/api/agent/stream", json=body) as answer:
                async for _ in answer.aiter_bytes():
                    pass

        readers = [asyncio.create_task(read()) for _ in range(_STREAMS)]
        await asyncio.sleep(6)
        times = []
        for _ in range(_SCRAPES):
            started_at = time.perf_counter()
            (await http.get("/metrics")).raise_for_status()
            times.append((time.perf_counter() - started_at) * 1000)
            await asyncio.sleep(0.3)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    return statistics.median(times)


METRICS = Suite(
    "metrics",
    [
        Aim("requests/s of `/query` at 50 in flight with metrics against without", TIMES, 0.98, less=False, digits=3),
        Aim("a scrape while 100 streams are open, median", " ms", 50.0, digits=1),
    ],
    _metrics,
)
