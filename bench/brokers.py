"""The suite of brokers: messages that start runs, beside a bare consumer that starts a bare workflow for each.

Both sides are a consumer and a worker in processes of their own, over one Temporal server and one broker. A message
carries the moment at which it was sent. Kafka is librdkafka's mock cluster and SQS moto's server: their own speed
shows in the figures of both sides.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.bare_client import bare_worker
from bench.broker_senders import SENDERS, Send
from bench.harness import quiet
from bench.processes import BIN, REPOSITORY, Child, until
from bench.sevenfold import CONFIG, Sevenfold
from bench.suite import Aim, Suite, p95
from tests.support.broker_servers import broker_section, broker_server

A_SECOND = 20
PACED = 100
MANY = 1_000
LIMIT = 180.0

OURS, BARE = "ours", "bare"

NAMES = {"nats": "NATS", "redis": "Redis", "rabbitmq": "RabbitMQ", "kafka": "Kafka", "sqs": "SQS"}


@contextlib.asynccontextmanager
async def _broker(kind: str, work: Path) -> AsyncIterator[tuple[str, Send]]:
    """Run a broker; yield its URL, and what sends a message to one of its queues, subjects, streams or topics."""
    with broker_server(kind, work / f"{kind}-{uuid.uuid4().hex[:8]}", OURS, BARE) as server:
        async with SENDERS[kind](server.url, [OURS, BARE]) as send:
            yield server.url, send


@contextlib.asynccontextmanager
async def _ours(kind: str, url: str, sevenfold: Sevenfold, work: Path) -> AsyncIterator[None]:
    """Run a worker and a connector whose messages start runs."""
    config = work / f"brokers-{kind}.toml"
    config.write_text(
        f'{CONFIG}\n{broker_section(kind, url)}[[brokers.{kind}.consume]]\nfrom = "{OURS}"\n'
        'start = { pattern = "queue", agent = "recording", task = "record" }\n'
    )
    environment = {
        "SEVENFOLD_DATA_DIR": str(work / f"brokers-{kind}"),
        "SEVENFOLD_CONFIG": str(config),
        "SEVENFOLD_TASK_QUEUE": f"brokers-{kind}-{uuid.uuid4().hex[:6]}",
        "TEMPORAL_ADDRESS": f"127.0.0.1:{sevenfold.ports.temporal}",
        "PYTHONPATH": str(REPOSITORY),
    }
    async with contextlib.AsyncExitStack() as stack:
        for command, line in (("worker", "worker polls"), ("connect", "broker connected")):
            log = work / f"{command}-{uuid.uuid4().hex[:6]}.log"
            child = Child([BIN / "sevenfold", command], log=log, environment=environment, cwd=REPOSITORY)
            stack.push_async_callback(child.stop, timeout_seconds=40)
            await until(lambda log=log, line=line: _has_logged(log, line), 60, command, child)  # type: ignore[misc]
        yield


async def _has_logged(log: Path, text: str) -> None:
    if text not in await asyncio.to_thread(log.read_text):
        raise RuntimeError(f"{text} is not in its log yet")


@contextlib.asynccontextmanager
async def _bare(kind: str, url: str, sevenfold: Sevenfold, work: Path) -> AsyncIterator[None]:
    """Run a default worker and a bare consumer."""
    address, queue = f"127.0.0.1:{sevenfold.ports.temporal}", f"bare-{uuid.uuid4().hex[:8]}"
    argv = [sys.executable, "-m", "bench.bare_consumer", kind, url, BARE, address, queue]
    log = work / f"bare-consumer-{queue}.log"
    async with bare_worker(address, queue, work):
        child = Child(argv, log=log, cwd=REPOSITORY)
        try:
            await until(lambda: _has_logged(log, "consumes"), 30, "the bare consumer", child)
            yield
        finally:
            await child.stop()


async def _journal(path: Path, count: int) -> list[tuple[float, float]]:
    """Return when each message was sent, and its agent asked, once there are so many."""
    await asyncio.to_thread(path.touch)
    async with asyncio.timeout(LIMIT):
        while (text := await asyncio.to_thread(path.read_text)).count("\n") < count:  # noqa: ASYNC110  (a file)
            await asyncio.sleep(0.05)
    return [(float(sent), float(asked)) for sent, asked in map(str.split, text.splitlines())]


@dataclass(frozen=True)
class _Figures:
    """From sent to asked: p95 in ms at 20 messages a second, p95 in s of many at once, and their rate per second."""

    paced: float
    saturated: float
    rate: float


async def _load(to: str, send: Send, work: Path) -> _Figures:

    def message(journal: Path) -> bytes:
        return json.dumps({"sent": time.time(), "journal": str(journal)}).encode()

    warm, paced, many = (work / f"journal-{uuid.uuid4().hex}" for _ in range(3))
    for _ in range(20):
        await send(to, message(warm))
    await _journal(warm, 20)
    await quiet(timeout_seconds=10)
    started_at = time.monotonic()
    for each in range(PACED):
        await asyncio.sleep(max(0.0, started_at + each / A_SECOND - time.monotonic()))
        await send(to, message(paced))
    delays = [(asked - sent) * 1000 for sent, asked in await _journal(paced, PACED)]
    await quiet(timeout_seconds=10)
    began = time.time()
    for _ in range(MANY):
        await send(to, message(many))
    times = await _journal(many, MANY)
    ended = max(asked for _, asked in times)
    return _Figures(p95(delays), p95([asked - sent for sent, asked in times]), MANY / (ended - began))


async def _brokers(sevenfold: Sevenfold, work: Path) -> list[float]:
    figures: list[float] = []
    ratios: list[float] = []
    for kind in NAMES:
        async with _broker(kind, work) as (url, send):
            async with _ours(kind, url, sevenfold, work):
                ours = await _load(OURS, send, work)
            await quiet(timeout_seconds=20)
            async with _bare(kind, url, sevenfold, work):
                bare = await _load(BARE, send, work)
        ratios.append(ours.rate / bare.rate)
        figures += [ours.paced, bare.paced, ours.saturated, bare.saturated, ours.rate, bare.rate, ratios[-1]]
    return [*figures, statistics.median(ratios)]


def _aims(broker: str) -> list[Aim]:
    return [
        Aim(f"{broker}, {A_SECOND} a second: sent, its agent asked, p95", " ms"),
        Aim(f"{broker}, the same of a bare consumer and workflow", " ms"),
        Aim(f"{broker}, {MANY:,} at once: sent, its agent asked, p95", " s", digits=1),
        Aim(f"{broker}, the same {MANY:,} of a bare consumer and workflow, p95", " s", digits=1),
        Aim(f"{broker}, {MANY:,} at once: messages until the last agent was asked", "/s"),
        Aim(f"{broker}, the same messages of a bare consumer", "/s"),
        Aim(f"{broker}, ours against the bare one", " \N{MULTIPLICATION SIGN}", 0.8, less=False, digits=2),
    ]


BROKERS = Suite(
    "brokers",
    [
        *(aim for name in NAMES.values() for aim in _aims(name)),
        Aim("median of all", " \N{MULTIPLICATION SIGN}", 0.8, less=False, digits=2),
    ],
    _brokers,
    rounds=1,
)
