"""The suite of events: how soon an agent has what was published, how many a second go through, and a wide fan-out.

An event carries the moment at which it was sent; its agent notes when it was asked. Beside it, a bare Temporal client
that starts a workflow with one activity for each event: no subscriptions, no audit, no run of the agent's own.
"""

import asyncio
import json
import statistics
import time
import uuid
from pathlib import Path

from temporalio.client import Client

from bench.bare_client import bare_worker
from bench.bare_workflow import Bare
from bench.harness import quiet, shares
from bench.processes import cpu_seconds
from bench.sevenfold import Sevenfold
from bench.suite import Aim, Suite, p95

A_SECOND = 10
PACED = 200
MANY = 1_000
IN_FLIGHT = 20
WIDE = 100
FAN_OUTS = 10
LIMIT = 240.0  # seconds until every reaction has started, or is lost

TIMES = " \N{MULTIPLICATION SIGN}"


class _Journal:
    """Where agents note, a line for each call, who was asked, when the event was sent, and when they were asked."""

    def __init__(self, work: Path) -> None:
        self.path = work / f"journal-{uuid.uuid4().hex}"

    def lines(self) -> list[tuple[str, float, float]]:
        if not self.path.exists():
            return []
        written = self.path.read_text().rpartition("\n")[0]  # the last line may be half of one
        read = (line.split() for line in written.splitlines())
        return [(run, float(sent), float(asked)) for run, sent, asked in read]

    async def filled(self, count: int) -> list[tuple[str, float, float]]:
        """What stands there once it is so much, or the time is up."""
        deadline = time.monotonic() + LIMIT
        while len(lines := self.lines()) < count and time.monotonic() < deadline:  # noqa: ASYNC110  (a file)
            await asyncio.sleep(0.1)
        return lines


async def _events(sevenfold: Sevenfold, work: Path) -> list[float]:
    client = await Client.connect(f"127.0.0.1:{sevenfold.ports.temporal}")
    accepted, started, others = await _paced(sevenfold, work)
    await quiet(timeout_seconds=20)
    through = await _through(sevenfold, client, work)
    await quiet(timeout_seconds=20)
    bare = await _bare(client, sevenfold, work)
    await quiet(timeout_seconds=20)
    fan_outs = await _fan_outs(sevenfold, work)
    rate, lost, doubled, server, ours, history = through
    return [
        *(p95(accepted), statistics.median(started), p95(started), others * 100),
        *(rate, lost, doubled, bare, rate / bare, server, ours, history),
        *(statistics.median(fan_outs), p95(fan_outs)),
    ]


async def _subscribe(sevenfold: Sevenfold, name: str, event_type: str, journal: _Journal) -> None:
    body = {"filter": {"exact": {"type": event_type}}, "agent": "noting", "task": "x"}
    body["params"] = {"journal": str(journal.path)}
    await sevenfold.http_client.put(f"/api/agent/subscriptions/{name}", json.dumps(body).encode())


async def _publish(sevenfold: Sevenfold, event_type: str) -> float:
    """Publish an event; return by how many ms it was accepted."""
    event = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "/bench", "type": event_type}
    sent = time.time()
    answer = await sevenfold.http_client.post(
        "/api/agent/events", json.dumps({**event, "data": {"sent": sent}}).encode()
    )
    if answer["accepted"] != 1:
        raise RuntimeError(f"Sevenfold answered {answer!r}")
    return (time.time() - sent) * 1000


async def _paced(sevenfold: Sevenfold, work: Path) -> tuple[list[float], list[float], float]:
    """Ten events a second, whether the ones before are through or not: ms until accepted and until the agent was
    asked, and the machine's share that other programs took.
    """
    journal = _Journal(work)
    await _subscribe(sevenfold, "paced", "bench.paced", journal)
    await asyncio.sleep(1)
    share = asyncio.create_task(shares(PACED / A_SECOND))
    started_at = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for each in range(PACED):
            await asyncio.sleep(max(0.0, started_at + each / A_SECOND - time.monotonic()))
            tasks.append(group.create_task(_publish(sevenfold, "bench.paced")))
    _, others = await share
    lines = await journal.filled(PACED)
    if len(lines) != PACED:
        raise RuntimeError(f"of {PACED} events {len(lines)} were reacted to")
    return [task.result() for task in tasks], [(asked - sent) * 1000 for _, sent, asked in lines], others


async def _through(sevenfold: Sevenfold, client: Client, work: Path) -> list[float]:
    """A thousand events, twenty at a time: events a second until the last agent was asked; how many were lost, and
    how many ran twice; processor time of the Temporal server and of ours, and events in the histories, for each.
    """
    journal = _Journal(work)
    await _subscribe(sevenfold, "through", "bench.through", journal)
    await asyncio.sleep(1)
    slots = asyncio.Semaphore(IN_FLIGHT)
    pid = sevenfold.child.pid
    before = cpu_seconds(pid), cpu_seconds(pid, with_server=True)
    started_at = time.time()

    async def one() -> None:
        async with slots:
            await _publish(sevenfold, "bench.through")

    await asyncio.gather(*(one() for _ in range(MANY)))
    lines = await journal.filled(MANY)
    seconds = max(asked for _, _, asked in lines) - started_at
    await asyncio.sleep(3)  # what runs twice would come now
    ours, whole = cpu_seconds(pid) - before[0], cpu_seconds(pid, with_server=True) - before[1]
    runs = [run for run, _, _ in journal.lines()]
    return [
        *(MANY / seconds, MANY - len(set(runs)), len(runs) - len(set(runs))),
        *((whole - ours) * 1000 / MANY, ours * 1000 / MANY),
        await _history_events(client),
    ]


async def _history_events(client: Client) -> float:
    """Events in the histories of an event and of its reaction together."""
    lengths = []
    for workflow_type in ("EventDriven", "EventReaction"):
        async for execution in client.list_workflows(f"WorkflowType = '{workflow_type}'", limit=1):
            lengths.append(execution.history_length)
    return float(sum(lengths))


async def _bare(client: Client, sevenfold: Sevenfold, work: Path) -> float:
    """Workflows a second, each with one activity, started and awaited twenty at a time."""
    address, queue = f"127.0.0.1:{sevenfold.ports.temporal}", f"bench-{uuid.uuid4().hex[:8]}"
    slots = asyncio.Semaphore(IN_FLIGHT)
    async with bare_worker(address, queue, work):

        async def one() -> None:
            async with slots:
                await client.execute_workflow(Bare.run, "hi", id=uuid.uuid4().hex, task_queue=queue)

        await asyncio.gather(*(one() for _ in range(20)))
        started_at = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(300)))
        return 300 / (time.perf_counter() - started_at)


async def _fan_outs(sevenfold: Sevenfold, work: Path) -> list[float]:
    """Seconds from an event to the last of its hundred agents being asked."""
    journal = _Journal(work)
    for number in range(WIDE):
        await _subscribe(sevenfold, f"wide-{number}", "bench.wide", journal)
    await asyncio.sleep(1)
    spans = []
    for number in range(1, FAN_OUTS + 1):
        await _publish(sevenfold, "bench.wide")
        lines = (await journal.filled(WIDE * number))[WIDE * (number - 1) :]
        if len(lines) != WIDE:
            raise RuntimeError(f"of {WIDE} reactions {len(lines)} have started")
        spans.append(max(asked for _, _, asked in lines) - min(sent for _, sent, _ in lines))
        await asyncio.sleep(2)
    return spans


EVENTS = Suite(
    "events",
    [
        Aim(f"an event accepted, p95, {A_SECOND} a second", " ms", 50, digits=1),
        Aim("sent, its agent asked: p50", " ms", digits=1),
        Aim("p95 of that", " ms", 1_000, digits=1),
        Aim("the machine busy with what is no part of this", " %"),
        Aim(f"{MANY:,} events, {IN_FLIGHT} in flight, one subscription: until the last agent was asked", " events/s"),
        Aim("lost", "", 0),
        Aim("run twice", "", 0),
        Aim("a bare client's workflows of one activity", " runs/s"),
        Aim("events against those", TIMES, digits=2),
        Aim("processor time of the Temporal server for an event and its reaction", " ms", digits=1),
        Aim("processor time of API and worker", " ms", digits=1),
        Aim("events in the histories of both", ""),
        Aim(f"one event to {WIDE} subscriptions, until the last agent was asked, p50", " s", digits=2),
        Aim("p95 of that", " s", 3, digits=2),
    ],
    _events,
)
