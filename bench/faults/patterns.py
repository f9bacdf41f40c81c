"""What clients do, pattern by pattern: start, come back for the result, and look whether it is whole."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bench.faults.agents import LARGE, answer_to
from bench.faults.api_client import ApiClient
from bench.faults.brokers import Exchange
from bench.faults.ledger import DoubledError, LostError, Run
from bench.faults.mailbox import SECRET, Mailbox

# So many runs are started once more, under their key, when they have ended.
REPEATED = 0.15

# Of questions and answers so many are large enough for the payload directory.
LARGE_SHARE = 0.05


@dataclass
class World:
    """What clients have around them."""

    api: ApiClient
    mailbox: Mailbox
    exchange: Exchange | None
    rng: random.Random
    # The campaign emptied the stream log: missing chunks must be reported, and are.
    streams_may_be_gone: bool = False

    def seconds(self) -> float:
        """How long an agent is to take: mostly no time, now and then seconds."""
        return self.rng.choice((0, 0, 0.05, 0.3, 1.0, 3.0))


Client = Callable[[Run, World], Awaitable[None]]


def check(found: object, expected: object, what: str) -> None:
    """Raise LostError unless they are the same."""
    if found != expected:
        raise LostError(f"{what} is {str(found)[:200]!r} instead of {str(expected)[:200]!r}")


async def query(run: Run, world: World) -> None:
    """Ask and wait; after a promise, come back."""
    large = world.rng.random() < LARGE_SHARE
    body: dict[str, Any] = {"query": run.key, "agent": "word", "params": {"seconds": world.seconds(), "large": large}}
    if large:
        body["context"] = {"much": "." * LARGE}
    answer = await world.api.start(run, "/query", body, "queryId", {"Prefer": "wait=15"})
    expected = answer_to(run.key, large=large)
    if answer.status_code == 200:
        run.response = answer.json()["response"]
        check(run.response, expected, "the answer")
    else:
        await world.api.ended(run)
        check(run.response, expected, "the result")
    await _repeat(run, world, "/query", body, "queryId", {"Prefer": "wait=15"})


async def hybrid(run: Run, world: World) -> None:
    """Use the hybrid endpoint; half of the requests estimate a long duration."""
    long = world.rng.random() < 0.5
    body: dict[str, Any] = {"query": run.key, "agent": "word", "params": {"seconds": world.rng.uniform(1, 3)}}
    body = {**body, "durationEstimate": 60} if long else {**body, "params": {"seconds": 0.1}, "durationEstimate": 0.1}
    answer = await world.api.start(run, "/hybrid", body, "hybridId")
    if answer.status_code == 200:
        run.response = answer.json()["response"]
    else:
        await world.api.ended(run)
    check(run.response, answer_to(run.key), "the answer")
    await _repeat(run, world, "/hybrid", body, "hybridId")


async def task(run: Run, world: World) -> None:
    """Start a task and poll it to its end, with `wait` and entity tags."""
    params = {"say": run.key, "seconds": world.seconds()}
    body = {"task": "work", "agent": "worker", "params": params}
    await world.api.start(run, "/tasks", body, "taskId")
    headers: dict[str, str] = {}
    while True:
        answer = await world.api.read(f"/tasks/{run.id}", headers, wait=world.rng.choice((0, 5)))
        if answer.status_code == 200:
            state = answer.json()
            if state["status"] not in ("queued", "processing"):
                break
            headers = {"If-None-Match": answer.headers["ETag"]}
        await asyncio.sleep(world.rng.uniform(0.2, 0.8))
    if state["status"] != "completed":
        raise LostError(f"ended as {state['status']}: {state.get('error')}")
    run.response = state["result"]["response"]
    check(run.response, answer_to(run.key), "the result")
    await _repeat(run, world, "/tasks", body, "taskId")


async def job(run: Run, world: World) -> None:
    """Queue a list; every item has to have its result, once and in order."""
    items = [f"{run.key}/{number}" for number in range(world.rng.randint(3, 25))]
    params = {"seconds": world.rng.choice((0, 0.05, 0.2))}
    body = {"task": "work", "agent": "item", "params": params, "data": {"items": items}, "concurrency": 5}
    await world.api.start(run, "/jobs", body, "jobId")
    state: dict[str, Any] = {"status": "queued"}
    while state["status"] in ("queued", "processing"):
        await asyncio.sleep(world.rng.uniform(0.3, 1))
        state = (await world.api.read(f"/jobs/{run.id}")).json()
    if state["status"] != "completed":
        raise LostError(f"ended as {state['status']}: {state.get('error')}")
    counted = {"completed": len(items), "failed": 0, "total": len(items), "percent": 100}
    check(state["progress"], counted, "the progress at the end")
    lines = (await world.api.read(f"/jobs/{run.id}/results")).text.splitlines()
    found = [(line["index"], (line.get("result") or {}).get("response")) for line in map(json.loads, lines)]
    check(found, list(enumerate(map(answer_to, items))), "the list of results")
    await _repeat(run, world, "/jobs", body, "jobId")


async def analyze(run: Run, world: World) -> None:
    """Have a document analyzed, and wait for the call back."""
    path = f"/{run.key}"
    body = {
        "document": run.key,
        "agent": "reader",
        "params": {"seconds": world.seconds()},
        "webhookUrl": world.mailbox.url(path),
        "webhookSecret": SECRET,
    }
    await world.api.start(run, "/analyze", body, "taskId")
    found = await world.api.ended(run)
    check(run.response, answer_to(run.key), "the result")
    await world.mailbox.until_taken(path)
    posts = world.mailbox.taken(path)
    for one in posts:
        check((one.body["taskId"], one.body["status"]), (run.id, "completed"), "the webhook's payload")
        check(one.body["result"]["response"], run.response, "the result in the webhook")
    if len({one.id for one in posts}) > 1:
        raise DoubledError(f"delivered under different webhook ids: {sorted({one.id for one in posts})}")
    check({one.id for one in posts}, {found["webhook"]["deliveryId"]}, "the webhook's id")
    await _repeat(run, world, "/analyze", body, "taskId")


async def _repeat(
    run: Run, world: World, path: str, body: dict[str, Any], name: str, headers: dict[str, str] | None = None
) -> None:
    """Now and then send the start again when all is over: the same run has to answer."""
    if world.rng.random() < REPEATED:
        answer = await world.api.start(run, path, body, name, headers)
        if answer.headers.get("Idempotency-Replayed") != "true":
            raise DoubledError(f"started again under its key: {answer.text[:200]}")
