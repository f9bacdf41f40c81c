"""The suite of a poll storm: many long-pollers on one run whose agent makes progress every second.

A change is made in the agent, sent to Temporal by the activity's heartbeat (one a second), read from there by the
API, and answered to every poller. So a change can be seen a second late before the API could know of it at all, and
the target is for the rest: from the moment that Temporal recorded the heartbeat (it keeps that moment, by its own
clock on this machine) until a poller has the answer.
"""

import asyncio
import json
import re
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx
from temporalio.client import Client

from bench.processes import REPOSITORY, Child, cpu_seconds
from bench.sevenfold import Sevenfold
from bench.suite import Aim, Suite, p95

POLLERS = 500
OBSERVED = 0.3  # seconds between two reads of our own; under a heartbeat's second, so that none is missed
READS = {
    "DescribeWorkflowExecution",
    "GetWorkflowExecutionHistory",
    "ListWorkflowExecutions",
    "CountWorkflowExecutions",
}

# The server adds up its counters for a second before it shows them.
METRICS_LAG = 2.0


@dataclass
class Observer:
    """Reads the run at Temporal itself: when each note was first recorded there, and how many reads that took."""

    client: Client
    task: str
    recorded: dict[str, float] = field(default_factory=dict)
    reads: int = 0

    async def watch(self) -> None:
        """Read on until cancelled."""
        handle = self.client.get_workflow_handle(f"default:{self.task}")
        while True:
            description = await handle.describe()
            self.reads += 1
            for activity in description.raw_description.pending_activities:
                heartbeat = await self.client.data_converter.decode(activity.heartbeat_details.payloads[:1])
                for progress in filter(None, heartbeat):  # the first heartbeats come before there is any
                    self.recorded.setdefault(progress["note"], activity.last_heartbeat_time.ToNanoseconds() / 1e9)
            await asyncio.sleep(OBSERVED)


async def _storm(sevenfold: Sevenfold, work: Path) -> list[float]:
    client = await Client.connect(f"127.0.0.1:{sevenfold.ports.temporal}")
    reads = await _reads(sevenfold)
    task = (await sevenfold.http_client.post("/api/agent/tasks", b'{"task": "x", "agent": "ticking"}'))["taskId"]
    observer = Observer(client, task)
    watching = asyncio.create_task(observer.watch())
    try:
        cpu, start = cpu_seconds(sevenfold.child.pid), time.perf_counter()
        sights = await _sights(sevenfold, task, work)
        seconds = time.perf_counter() - start
        if watching.done():
            watching.result()  # it never ends well
        cpu = cpu_seconds(sevenfold.child.pid) - cpu
    finally:
        watching.cancel()
    reads = await _reads(sevenfold) - reads - observer.reads
    run = await sevenfold.http_client.get(f"/api/agent/runs/{task}")
    closed = datetime.fromisoformat(run["closedAt"]).timestamp()
    return [*_delays(sights, observer.recorded, closed), cpu / seconds * 1000, reads / seconds]


async def _sights(sevenfold: Sevenfold, task: str, work: Path) -> list[tuple[float, str, str]]:
    """Return what the pollers saw, and when."""
    log = work / f"pollers-{task}.log"
    argv = [sys.executable, "-m", "bench.pollers", str(sevenfold.ports.http), task, str(POLLERS)]
    pollers = Child(argv, log=log, cwd=REPOSITORY)
    try:
        await pollers.wait(90)
    finally:
        await pollers.stop()
    return [tuple(sight) for sight in json.loads(log.read_text())]


def _delays(sights: list[tuple[float, str, str]], recorded: dict[str, float], closed: float) -> list[float]:
    """Return the p95 delays in ms: from record, from close, from the first poller who knew, from the agent."""
    changes = [(seen, note) for seen, _, note in sights if note]
    ends = [seen - closed for seen, status, _ in sights if status == "completed"]
    if len(ends) != POLLERS:
        raise RuntimeError(f"{len(ends)} of {POLLERS} pollers saw the run completed")
    moments: defaultdict[str, list[float]] = defaultdict(list)
    for seen, note in changes:
        moments[note].append(seen)
    delays = (
        [seen - recorded[note] for seen, note in changes if note in recorded],
        ends,
        [seen - min(moments[note]) for seen, note in changes],
        [seen - float(note) for seen, note in changes],
    )
    return [p95(each) * 1000 for each in delays]


async def _reads(sevenfold: Sevenfold) -> float:
    """Return how many calls that read a run the Temporal server has answered, by its own count."""
    log = (sevenfold.data / "temporal.log").read_text()
    address = re.search(r"Temporal Metrics:\s+(\S+)", log)
    if address is None:
        raise RuntimeError("temporal.log does not hold the address of the server's metrics")
    await asyncio.sleep(METRICS_LAG)
    async with httpx.AsyncClient() as http:
        metrics = (await http.get(address[1], timeout=10)).text
    lines = (line for line in metrics.splitlines() if line.startswith("service_requests{"))
    ours = (line for line in lines if 'service_name="frontend"' in line)
    return sum(float(line.split()[-1]) for line in ours if any(f'"{name}"' in line for name in READS))


LONG_POLLS = Suite(
    "long-polls",
    [
        Aim(f"{POLLERS} long-pollers: change seen, p95 from Temporal's record of the heartbeat", " ms", 250),
        Aim("end seen, p95 from the run's close", " ms", 250),
        Aim("change seen, p95 from the first poller that saw it", " ms"),
        Aim("change seen, p95 from the agent's own clock (heartbeats are 1 s apart)", " ms"),
        Aim("processor time of API and worker meanwhile", " ms/s"),
        Aim("Temporal calls that read the run", "/s", digits=1),
    ],
    _storm,
)
