"""Loads a server with streams; prints the latency of their chunks and the cost."""

import asyncio
import json
import statistics
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.agents import CHUNKS_A_SECOND
from bench.footprint import memory
from bench.harness import shares
from bench.processes import REPOSITORY, Child, cpu_seconds
from bench.stream_readers import Received

OPEN = 15  # seconds for which all streams of a load are open together
SLACK = 3  # seconds: how long the last one to be asked for may take until its first chunk
LIMIT = 90.0


@dataclass(frozen=True)
class Load:
    """Streams that were open at the same time. Process by process, `cpu` is what was used in ms a second, `rss` the
    memory at the end in MB. `busy` is the whole machine's share, `others` that of programs that are none of ours.
    """

    streams: list[Received]
    delays: list[float]
    cpu: list[float]
    rss: list[float]
    busy: float
    others: float

    def percentile(self, percent: int) -> float:
        """Return by how many ms the chunks came late, of those that came while all streams were open."""
        return statistics.quantiles(self.delays, n=100, method="inclusive")[percent - 1] * 1000


async def read(port: int, work: Path, streams: int, chunks: int, *more: str) -> list[Received]:
    """Have so many streams read, one after the other unless `more` changes that."""
    log = work / f"streams-{uuid.uuid4().hex[:8]}.log"
    argv = [sys.executable, "-m", "bench.stream_readers", str(port), "--streams", str(streams)]
    argv += ["--chunks", str(chunks), "--limit", str(LIMIT), *more]
    readers = Child(argv, log=log, cwd=REPOSITORY)
    try:
        await readers.wait(LIMIT + 30)
    finally:
        await readers.stop()
    return [Received(**stream) for stream in json.loads(log.read_text())]


async def load(port: int, work: Path, pids: Sequence[int], streams: int, over: float) -> Load:
    """Read so many streams that are started over a time; raise `RuntimeError` if they were not open together."""
    chunks = round((over + SLACK + OPEN) * CHUNKS_A_SECOND)
    reading = asyncio.create_task(read(port, work, streams, chunks, "--over", str(over)))
    try:
        await asyncio.sleep(over + SLACK)
        before = [cpu_seconds(pid) for pid in pids]
        seconds = OPEN - SLACK
        busy, others = await shares(seconds)
        cpu = [(cpu_seconds(pid) - used) / seconds * 1000 for pid, used in zip(pids, before, strict=True)]
        rss = [memory(pid).rss for pid in pids]
        received = await reading
    finally:
        reading.cancel()
    if any(len(stream.chunks) != chunks for stream in received):
        raise RuntimeError(f"of {chunks} chunks came {min(len(stream.chunks) for stream in received)}")
    return Load(received, _delays(received), cpu, rss, busy, others)


def _delays(streams: Sequence[Received]) -> list[float]:
    started_at = max(stream.chunks[0][1] for stream in streams)
    over = min(stream.chunks[-1][0] for stream in streams)
    if over - started_at < OPEN:
        raise RuntimeError(f"all streams were open for {over - started_at:.1f} s together, not for {OPEN}")
    return [
        seen - chunks_sent
        for stream in streams
        for chunks_sent, seen in stream.chunks
        if started_at <= chunks_sent < started_at + OPEN
    ]
