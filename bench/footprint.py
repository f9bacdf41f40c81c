"""What Sevenfold costs before anybody asks anything: its start, and the memory of API and worker."""

import asyncio
import shutil
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness import PrintLine, rate, reason
from bench.processes import family
from bench.sevenfold import Ports, run_sevenfold

REST = 5.0  # seconds without a request before memory counts as idle


@dataclass(frozen=True)
class Memory:
    """Resident (`rss`) and proportional (`pss`: shared pages divided by their users) memory in MB (10^6 bytes)."""

    rss: float
    pss: float


@dataclass
class Footprint:
    """Seconds until ready, by start; memory 5 s after ready and 5 s after a load of 50 in flight."""

    first_starts: list[float] = field(default_factory=list)
    later_starts: list[float] = field(default_factory=list)
    idle: list[Memory] = field(default_factory=list)
    after_load: Memory | None = None
    not_run: str | None = None

    @property
    def idle_median(self) -> Memory:
        """The median over the starts."""
        return Memory(
            statistics.median(each.rss for each in self.idle), statistics.median(each.pss for each in self.idle)
        )


async def measure_footprint(work: Path, starts: int, load_seconds: float, print_line: PrintLine) -> Footprint:
    """Start Sevenfold `starts` times on an empty data folder and `starts` times on one that has runs."""
    footprint = Footprint()
    used = work / "footprint-used"
    try:
        footprint.after_load = await _load(work, used, load_seconds)
        for number in range(starts):
            empty = work / f"footprint-{number}"
            async with run_sevenfold(work, empty, Ports.free()) as sevenfold:
                footprint.first_starts.append(sevenfold.seconds)
                await asyncio.sleep(REST)
                footprint.idle.append(memory(sevenfold.child.pid))
            shutil.rmtree(empty, ignore_errors=True)
            async with run_sevenfold(work, used, Ports.free()) as sevenfold:
                footprint.later_starts.append(sevenfold.seconds)
            print_line(
                f"start {number + 1}: {footprint.first_starts[-1]:.1f} s empty, "
                f"{footprint.later_starts[-1]:.1f} s existing, {footprint.idle[-1].rss:.0f} MB"
            )
    except Exception as error:  # what was measured before stays in the report, with the reason
        footprint.not_run = reason(error)
        print_line(f"footprint: not run: {footprint.not_run}")
    return footprint


async def _load(work: Path, data: Path, seconds: float) -> Memory:
    """Fill `data` with runs and return the memory afterwards."""
    async with run_sevenfold(work, data, Ports.free()) as sevenfold:
        await rate(sevenfold.query, 50, seconds)
        await asyncio.sleep(REST)
        return memory(sevenfold.child.pid)


def memory(pid: int) -> Memory:
    """Sum over a process and its descendants, the Temporal server apart."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise RuntimeError("memory needs Linux's /proc/<pid>/smaps_rollup")
    totals = {"Rss:": 0, "Pss:": 0}
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            name, *rest = line.split()
            if name in totals:
                totals[name] += int(rest[0]) * 1024
    return Memory(totals["Rss:"] / 1e6, totals["Pss:"] / 1e6)
