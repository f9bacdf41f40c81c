"""`python -m bench.soak`: all patterns mixed for half an hour, and what memory each process gains per thousand runs.

No fault is injected. The slope is that of the memory over the ended runs after a warm-up, in which caches fill.
Caches of workflows are kept small, so that they are full by then.
"""

import argparse
import asyncio
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.faults.campaign import open_world
from bench.faults.ledger import Ledger, Row
from bench.faults.load import Load
from bench.faults.parts import Part
from bench.faults.stack import Plan, running_stack

NAME = "soak"
WARM_UP_SHARE = 1 / 3
SAMPLE_SECONDS = 10.0
AIM_MEGABYTES = 1.0  # gained by a thousand runs
ENVIRONMENT = {"SEVENFOLD_MAX_CACHED_WORKFLOWS": "100"}


@dataclass(frozen=True)
class Sample:
    """The memory of one process (resident, in MB of 10^6 bytes) when so many runs had ended."""

    runs: int
    megabytes: float


@dataclass
class Memory:
    """Samples by process."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def take(self, parts: Iterable[Part], runs: int) -> None:
        """Sample each process."""
        for part in parts:
            if part.pid is not None:
                self.samples.setdefault(part.name, []).append(Sample(runs, resident_megabytes(part.pid)))


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process; Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} has no VmRSS")


def slope(samples: Sequence[Sample]) -> float:
    """Return the MB gained per thousand runs, by least squares: between collections memory rises and falls."""
    runs = [one.runs for one in samples]
    return statistics.linear_regression(runs, [one.megabytes for one in samples]).slope * 1_000


async def soak(work: Path, seconds: float, rate: float, seed: int) -> tuple[Ledger, Memory, int]:
    """Run the load; return its ledger, the memory, and how many samples are warm-up."""
    ledger, memory, rng = Ledger(), Memory(), random.Random(seed)
    ledger.rows[NAME] = Row(NAME, "no fault")
    ledger.fault = NAME
    plan = Plan(with_broker=shutil.which("nats-server") is not None, environment=ENVIRONMENT)
    warm = 0
    async with running_stack(work, plan, ledger) as stack, open_world(stack, ledger, rng) as world:
        load = Load(world, ledger, rate, NAME)
        loading = asyncio.create_task(load.run())
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            await asyncio.sleep(SAMPLE_SECONDS)
            check_running((*stack.product, stack.temporal))
            ended = sum(run.ended for run in ledger.rows[NAME].runs)
            memory.take((*stack.product, stack.temporal), ended)
            warm += elapsed < seconds * WARM_UP_SHARE
            if int(elapsed // 60) != int((elapsed - SAMPLE_SECONDS) // 60):
                latest = {name: f"{found[-1].megabytes:.0f}" for name, found in memory.samples.items()}
                print(f"  {elapsed / 60:3.0f} min, {ended} runs: {latest}", flush=True)
            if loading.done():
                loading.result()  # It goes on until it is cancelled, or has failed.
        loading.cancel()
        await load.wait_until_settled()
    return ledger, memory, warm


def check_running(parts: Iterable[Part]) -> None:
    """Raise RuntimeError if a process has ended."""
    for part in parts:
        if part.pid is None:
            raise RuntimeError(f"{part.name} ended with {part.exit_code}: {part.tail()}")


def table(memory: Mapping[str, Sequence[Sample]], warm: int) -> list[str]:
    """Return the report as Markdown lines."""
    lines = ["| process | after the warm-up | at the end | MB per 1,000 runs |", "| --- | --- | --- | --- |"]
    for name, samples in memory.items():
        kept = samples[warm:]
        first, last = kept[0].megabytes, kept[-1].megabytes
        lines.append(f"| {name} | {first:.0f} MB | {last:.0f} MB | {slope(kept):+.2f} |")
    return lines


def main() -> None:
    """Parse the arguments, run, print; end with 1 if a process of ours gains more than the aim, or a run was lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="at least 1 (default 30)")
    parser.add_argument("--rate", type=float, default=8, help="runs started a second on average (default 8)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.minutes < 1:
        parser.error("--minutes is at least 1")
    work = Path(tempfile.mkdtemp(prefix="sevenfold-soak-"))
    try:
        ledger, memory, warm = asyncio.run(soak(work, arguments.minutes * 60, arguments.rate, arguments.seed))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    ended = sum(run.ended for run in ledger.runs)
    print(f"\n{ended} runs in {arguments.minutes:g} minutes, {len(ledger.broken)} lost or doubled.\n")
    print("\n".join(table(memory.samples, warm)))
    for note in (*ledger.notes, *map(str, ledger.broken)):
        print(note)
    gains = {name: slope(samples[warm:]) for name, samples in memory.samples.items() if name != "temporal"}
    sys.exit(1 if ledger.broken or max(gains.values()) > AIM_MEGABYTES else 0)


if __name__ == "__main__":
    main()
