"""The suites of streams: the latency of a chunk, and the cost of an open stream.

A chunk is the moment at which the agent spoke it, so a delay is the reader's clock less that. In `streams` API and
worker are one process, as `sevenfold dev` has them; in the other two they are apart, and chunks come through
the log: the run's history, or Redis.
"""

import asyncio
import contextlib
import random
import statistics
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from temporalio.client import Client

from bench.environment import redis_server
from bench.footprint import memory
from bench.harness import quiet
from bench.http_load import HttpClient
from bench.ports import free_ports
from bench.processes import BIN, REPOSITORY, Child, until
from bench.sevenfold import Ports, Sevenfold, run_apart, run_sevenfold
from bench.stream_load import Load, load, read
from bench.stream_readers import Received
from bench.suite import Aim, Suite, p95

MANY = 100
OVER = 5.0  # seconds in which they are started
FEW = 5
IN_TURN = 30
WARM_UP = 20
THOUSAND = 1_000

TIMES = " \N{MULTIPLICATION SIGN}"


async def _together(sevenfold: Sevenfold, work: Path) -> list[float]:
    loads: dict[str, Load] = {}
    async with _bare(work) as (port, bare):
        ours, theirs = await _first_chunks([sevenfold.ports.http, port], work)
        cancels, events = await _cancels(sevenfold, work)
        # in either order, since nobody knows what the machine does besides
        for name in random.sample(["ours", "bare"], 2):
            await quiet(timeout_seconds=20)
            if name == "ours":
                loads[name], memory_each = await _loaded(work)
            else:
                loads[name] = await load(port, work, [bare.pid], MANY, OVER)
    return [
        *(ours, theirs, ours / theirs),
        *_against(loads["ours"], loads["bare"]),
        *(memory_each, p95(cancels), statistics.median(cancels), events),
    ]


def _against(ours: Load, bare: Load) -> list[float]:
    delays = [side.percentile(percent) for side in (ours, bare) for percent in (95, 50, 99)]
    machine = [share * 100 for share in (ours.busy, ours.others, bare.others)]
    return [*delays, ours.percentile(95) / bare.percentile(95), *ours.cpu, *bare.cpu, *machine]


async def _first_chunks(ports: Sequence[int], work: Path) -> list[float]:
    """Return the p50 in ms until the first chunk, of streams that are read one after the other, for each server."""
    found = {}
    for port in random.sample(ports, len(ports)):
        await read(port, work, WARM_UP, 1)
        await quiet(timeout_seconds=10)
        streams = await read(port, work, IN_TURN, 2)
        found[port] = statistics.median(stream.chunks[0][1] - stream.sent for stream in streams) * 1000
    return [found[port] for port in ports]


async def _cancels(sevenfold: Sevenfold, work: Path) -> tuple[list[float], float]:
    """Return after how many ms each agent knew of its cancellation; and how many events are in the history of a
    stream of 1,000 chunks, which takes its fifty seconds beside them.
    """
    port = sevenfold.ports.http
    journal = work / f"cancelled-{random.getrandbits(32):x}.log"
    long = asyncio.create_task(read(port, work, 1, THOUSAND))
    try:
        streams = await read(port, work, IN_TURN, THOUSAND, "--journal", str(journal))
        events = await _events_per_thousand(sevenfold, await long)
    finally:
        long.cancel()
    known = {int(mark): float(moment) for mark, moment in map(str.split, journal.read_text().splitlines())}
    if any(stream.status != "cancelled" for stream in streams):
        raise RuntimeError(f"a cancelled stream ended otherwise: {[stream.status for stream in streams]}")
    return [(known[number] - stream.cancel_sent) * 1000 for number, stream in enumerate(streams)], events


async def _loaded(work: Path) -> tuple[Load, float]:
    """Load a Sevenfold of its own; return also the kB of memory that each stream took.

    Of its own, because memory that an earlier load has left behind would be taken again, and cost nothing.
    """
    async with run_sevenfold(work, work / f"loaded-{random.getrandbits(32):x}", Ports.free()) as sevenfold:
        pid = sevenfold.child.pid
        await read(sevenfold.ports.http, work, WARM_UP, WARM_UP, "--over", "1")
        await quiet(timeout_seconds=10)
        before = memory(pid).rss
        loaded = await load(sevenfold.ports.http, work, [pid], MANY, OVER)
    return loaded, (loaded.rss[0] - before) * 1000 / MANY


async def _events_per_thousand(sevenfold: Sevenfold, streams: list[Received]) -> float:
    client = await Client.connect(f"127.0.0.1:{sevenfold.ports.temporal}")
    events = 0
    for stream in streams:
        events += (await client.get_workflow_handle(f"default:{stream.id}").describe()).history_length
    return events / sum(len(stream.chunks) for stream in streams) * 1000


@contextlib.asynccontextmanager
async def _bare(work: Path) -> AsyncIterator[tuple[int, Child]]:
    """Run the same agent behind a bare `StreamingResponse`, on the server and with the options that we have."""
    (port,) = free_ports(1)
    argv: list[str | Path] = [BIN / "uvicorn", "bench.peers.stream_app:app", "--port", str(port)]
    argv += ["--http", "httptools", "--lifespan", "off", "--log-level", "warning"]
    argv += ["--no-access-log", "--no-server-header"]
    child = Child(argv, log=work / f"bare-{port}.log", cwd=REPOSITORY)
    connection = HttpClient(port)
    try:
        await until(lambda: connection.get("/ready"), 40, "the bare server", child)
        yield port, child
    finally:
        await connection.close()
        await child.stop()


STREAMS = Suite(
    "streams",
    [
        Aim("a stream's first chunk, p50 from the request, one stream at a time", " ms", 30, digits=1),
        Aim("the same of a bare `StreamingResponse`", " ms", digits=1),
        Aim("ours against the bare one", TIMES, digits=1),
        Aim(f"{MANY} streams of 20 chunks/s: chunk seen, p95 from the agent's word", " ms", 5, digits=1),
        Aim("p50 of ours", " ms", digits=1),
        Aim("p99 of ours", " ms", digits=1),
        Aim("the same of a bare `StreamingResponse`: p95", " ms", digits=1),
        Aim("p50 of the bare one", " ms", digits=1),
        Aim("p99 of the bare one", " ms", digits=1),
        Aim("p95 of ours against the bare one's", TIMES, digits=1),
        Aim("processor time of API and worker meanwhile", " ms/s"),
        Aim("processor time of the bare server meanwhile", " ms/s"),
        Aim("the machine busy meanwhile, with the Temporal server and the readers", " %"),
        Aim("the machine busy with what is no part of this, beside ours", " %"),
        Aim("the machine busy with what is no part of this, beside the bare one", " %"),
        Aim(f"memory of API and worker for each of {MANY} open streams (RSS)", " kB", 200),
        Aim("cancellation known to the agent, p95 from the request", " ms", 250),
        Aim("cancellation known to the agent, p50", " ms"),
        Aim("events in the history per 1,000 chunks, read in the worker's process", "", 300),
    ],
    _together,
)


async def _apart(sevenfold: Sevenfold, work: Path) -> list[float]:
    async with run_apart(work, sevenfold) as apart:
        await read(apart.port, work, WARM_UP, 1)
        await quiet(timeout_seconds=10)
        loaded = await load(apart.port, work, [apart.worker.pid, apart.api.pid], FEW, 1)
        events = await _events_per_thousand(sevenfold, loaded.streams)
    return [loaded.percentile(50), loaded.percentile(95), events, loaded.others * 100]


STREAMS_APART = Suite(
    "streams-apart",
    [
        Aim(f"read in another process, the history as log, {FEW} streams: chunk seen, p50", " ms", 120),
        Aim("p95 by the history", " ms"),
        Aim("events in the history per 1,000 chunks, read in another process", ""),
        Aim("the machine busy with what is no part of this", " %"),
    ],
    _apart,
)


async def _redis(sevenfold: Sevenfold, work: Path) -> list[float]:
    (port,) = free_ports(1)
    argv: list[str | Path] = [redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--dir", work]
    redis = Child([*argv, "--save", "", "--appendonly", "no"], log=work / "streams-redis.log", cwd=work)
    try:
        await until(lambda: asyncio.open_connection("127.0.0.1", port), 20, "redis-server", redis)
        settings = {"SEVENFOLD_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
        async with run_apart(work, sevenfold, settings) as apart:
            await read(apart.port, work, WARM_UP, WARM_UP, "--over", "1")
            await quiet(timeout_seconds=10)
            loaded = await load(apart.port, work, [apart.worker.pid, apart.api.pid], MANY, OVER)
    finally:
        await redis.stop()
    delays = [loaded.percentile(percent) for percent in (95, 50, 99)]
    return [*delays, *loaded.cpu, loaded.busy * 100, loaded.others * 100]


STREAMS_REDIS = Suite(
    "streams-redis",
    [
        Aim(f"read in another process, Redis as log, {MANY} streams: chunk seen, p95", " ms", 25, digits=1),
        Aim("p50 by Redis", " ms", digits=1),
        Aim("p99 by Redis", " ms", digits=1),
        Aim("processor time of the worker meanwhile", " ms/s"),
        Aim("processor time of the API meanwhile", " ms/s"),
        Aim("the machine busy meanwhile, with Temporal, Redis and the readers", " %"),
        Aim("the machine busy with what is no part of this", " %"),
    ],
    _redis,
)
