"""The suite of webhooks: how long after the agent a receiver has its answer, and what comes of deliveries that fail.

The agent puts the moment at which it was done into its reply, and so into what is posted; the receiver, a process of
its own on this machine, notes when that arrived. Beside it, each at the same pace: a signed POST by itself, which is
the floor; and a bare Temporal client's workflow of two activities, the work and the POST, on the same server.
"""

import asyncio
import contextlib
import json
import random
import statistics
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from temporalio.client import Client

from bench.bare_callback import BareCallback, post_signed
from bench.bare_client import bare_worker
from bench.harness import quiet, shares
from bench.http_load import HttpClient
from bench.serving import served
from bench.sevenfold import Sevenfold
from bench.suite import Aim, Suite
from bench.webhook_receiver import FAILING, FLAKY, SIGNED_BY, Post

A_SECOND = 10
PACED = 200
PACED_BARE = 100
WARM_UP = 20

DELIVERIES = 1_000
IN_FLIGHT = 20
LIMIT = 240.0  # seconds until everything was delivered, or is lost

# Fifteen attempts: of a thousand deliveries that fail with 30 % each, one in 70,000 such thousands would be given up.
SETTINGS = {
    "SEVENFOLD_ALLOW_LOOPBACK_URLS": "true",
    "SEVENFOLD_WEBHOOK_SCHEDULE": "0,0.5,1,1" + 11 * ",2",
}

TIMES = " \N{MULTIPLICATION SIGN}"

Start = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Mailbox:
    """The receiver, from outside: every path of it is a receiver by itself."""

    port: int
    http_client: HttpClient

    def url(self, path: str) -> str:
        """The address that deliveries to `path` go to."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def posts(self, path: str) -> list[Post]:
        """What has come so far."""
        return [Post(*post) for post in await self.http_client.get(path)]

    async def taken(self, path: str, number: int, seconds: float) -> list[Post]:
        """What had come when deliveries of so many runs were taken, or when the time is up."""
        deadline = time.monotonic() + seconds
        while True:
            posts = await self.posts(path)
            if len({post.id for post in posts if post.taken}) >= number or time.monotonic() > deadline:
                return posts
            await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def _mailbox(work: Path) -> AsyncIterator[Mailbox]:
    async with served("bench.webhook_receiver", work, "/ready", 40) as connection:
        yield Mailbox(connection.port, connection)


async def _webhooks(sevenfold: Sevenfold, work: Path) -> list[float]:
    client = await Client.connect(f"127.0.0.1:{sevenfold.ports.temporal}")
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    async with (
        _mailbox(work) as mailbox,
        httpx.AsyncClient() as http,
        bare_worker(f"127.0.0.1:{sevenfold.ports.temporal}", queue, work),
    ):

        async def ours(url: str) -> None:
            await sevenfold.http_client.post("/api/agent/analyze", _body(url, document="How are you?"))

        async def bare(url: str) -> None:
            await client.start_workflow(BareCallback.run, url, id=uuid.uuid4().hex, task_queue=queue)

        async def plain(url: str) -> None:
            await post_signed(http, url, uuid.uuid4().hex, time.time())

        starts = {"ours": (ours, PACED), "bare": (bare, PACED_BARE), "plain": (plain, PACED_BARE)}
        delays, others = {}, {}
        # in any order, since the later ones find a fuller database
        for name in random.sample(list(starts), len(starts)):
            delays[name], others[name] = await _turn(mailbox, *starts[name])
        await quiet(timeout_seconds=20)
        delivered = await _deliver(sevenfold, mailbox)
    p50 = {name: statistics.median(each) for name, each in delays.items()}
    cuts = statistics.quantiles(delays["ours"], n=100, method="inclusive")
    bare_cuts = statistics.quantiles(delays["bare"], n=100, method="inclusive")
    return [
        *(p50["ours"], cuts[94], cuts[98], p50["bare"], bare_cuts[94], p50["ours"] / p50["bare"], p50["plain"]),
        *(others["ours"] * 100, *delivered),
    ]


def _body(url: str, **more: str) -> bytes:
    return json.dumps({"agent": "telling", "webhookUrl": url, "webhookSecret": SIGNED_BY, **more}).encode()


async def _turn(mailbox: Mailbox, start: Start, number: int) -> tuple[list[float], float]:
    """Return by how many ms so many deliveries arrived after their agents were done, started at an even pace; and
    the machine's share that other programs took.
    """
    path = f"/{uuid.uuid4().hex}"
    await _paced(start, mailbox.url(f"{path}/warm"), WARM_UP)
    await mailbox.taken(f"{path}/warm", WARM_UP, 30)
    await quiet(timeout_seconds=10)
    share = asyncio.create_task(shares(number / A_SECOND))
    try:
        await _paced(start, mailbox.url(path), number)
        posts = await mailbox.taken(path, number, 30)
        _, others = await share
    finally:
        share.cancel()
    if len(posts) != number or not all(post.taken for post in posts):
        raise RuntimeError(f"of {number} deliveries {len(posts)} came, {Counter(post.status for post in posts)}")
    return [(post.arrived - post.done) * 1000 for post in posts], others


async def _paced(start: Start, url: str, number: int) -> None:
    """Start so many, ten a second, whether the ones before are through or not."""
    started_at = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for each in range(number):
            # Until a moment, not for a span: being late once shall not make all the others later.
            await asyncio.sleep(max(0.0, started_at + each / A_SECOND - time.monotonic()))
            group.create_task(start(url))


async def _deliver(sevenfold: Sevenfold, mailbox: Mailbox) -> list[float]:
    """Deliver a thousand runs to a failing receiver; return the outcome."""
    path = f"{FLAKY}/{uuid.uuid4().hex}"
    body = _body(mailbox.url(path), task="x")
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> str:
        async with slots:
            return (await sevenfold.http_client.post("/api/agent/tasks", body))["taskId"]

    started_at = time.time()
    runs = await asyncio.gather(*(one() for _ in range(DELIVERIES)))
    accepted = time.time() - started_at
    posts = await mailbox.taken(path, DELIVERIES, LIMIT - accepted)
    await asyncio.sleep(3)  # longer than any pause: a repeated delivery would come now
    posts = await mailbox.posts(path)
    if wrong := {post.status for post in posts} - {204, 500}:
        raise RuntimeError(f"the receiver answered {wrong}")
    times = Counter(post.id for post in posts if post.taken)
    delivered = {post.run for post in posts if post.taken}
    first: dict[str, float] = {}
    for post in posts:
        if post.taken:
            first.setdefault(post.id, post.arrived)
    last = max(first.values(), default=started_at) - started_at
    return [len(times), len(set(runs) - delivered), sum(n > 1 for n in times.values()), len(posts), accepted, last]


WEBHOOKS = Suite(
    "webhooks",
    [
        Aim(f"agent done, receiver has it, p50, {A_SECOND} a second", " ms", 60, digits=1),
        Aim("p95 of ours", " ms", 150, digits=1),
        Aim("p99 of ours", " ms", digits=1),
        Aim("the same of a bare client's workflow with an activity that posts, p50", " ms", digits=1),
        Aim("p95 of the bare one", " ms", digits=1),
        Aim("p50 of ours against the bare one's", TIMES, digits=2),
        Aim("a signed POST by itself, p50", " ms", digits=1),
        Aim("the machine busy with what is no part of this", " %"),
        Aim(
            f"of {DELIVERIES:,} deliveries to a receiver that fails {FAILING:.0%}: delivered",
            "",
            DELIVERIES,
            less=False,
        ),
        Aim("lost", "", 0),
        Aim("taken more than once", ""),
        Aim("attempts", ""),
        Aim(f"until all were accepted, {IN_FLIGHT} in flight", " s", digits=1),
        Aim("until all were delivered, with pauses of 0.5 to 2 s", " s", digits=1),
    ],
    _webhooks,
    SETTINGS,
)
