"""`python -m bench.fuzz.watch PORT PID`: asks GET /health/live every 50 ms until its standard input is closed.

Run as a process of its own, so that what it measures is the product's delay and not the campaign's. A machine that is
shared delays the product too: so the time for which its event loop's thread was ready, and had no processor, is
measured along (Linux). The report is one JSON object, the fields of `Probes`.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.fuzz.exchange import Request, ask

PERIOD = 0.05
_REPORTED_FROM = 0.1
_NO_REPORT = b'{"count": 0, "slow": [], "failed": [[0, "the watching process has ended"]]}'
_PROBE = Request("GET", b"/health/live")
_ROOT = Path(__file__).parent.parent.parent


class Slow(NamedTuple):
    """A probe that took long: when it was sent, how long it took, and how much of that the product was kept from
    running by other programs.
    """

    at: float
    seconds: float
    starved: float

    @property
    def held_seconds(self) -> float:
        """The seconds that are the product's own."""
        return self.seconds - self.starved


@dataclass
class Probes:
    """What was measured. `failed` holds the moments of failed probes, and why."""

    count: int = 0
    slow: list[Slow] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)


@asynccontextmanager
async def watched(port: int, pid: int) -> AsyncIterator[Probes]:
    """Watches from now on; the probes are there when the block has ended."""
    probes = Probes()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.fuzz.watch",
        str(port),
        str(pid),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
    )
    try:
        yield probes
    finally:
        report, _ = await asyncio.wait_for(process.communicate(b""), 60)
        report_json = json.loads(report or _NO_REPORT)
        probes.count = report_json["count"]
        probes.slow = [Slow(*one) for one in report_json["slow"]]
        probes.failed = [(at, why) for at, why in report_json["failed"]]


async def _watch(port: int, pid: int) -> Probes:
    probes = Probes()
    stopped = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not stopped.done():
        at, starved = time.time(), _starved(pid)
        answer = await ask(port, _PROBE, timeout_seconds=60)
        probes.count += 1
        if answer.status != 200:
            probes.failed.append((at, answer.failure or f"answered {answer.status}"))
        elif answer.seconds > _REPORTED_FROM:
            probes.slow.append(Slow(at, answer.seconds, _starved(pid) - starved))
        await asyncio.sleep(max(0.0, at + PERIOD - time.time()))
    return probes


def _starved(pid: int) -> float:
    """Seconds for which the process's main thread has been waiting for a processor since it began."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    found = asyncio.run(_watch(int(sys.argv[1]), int(sys.argv[2])))
    print(json.dumps(asdict(found)))
