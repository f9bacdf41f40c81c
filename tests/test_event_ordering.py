"""Events that take turns: in the order of acceptance, however many keys there are, and whoever dies."""

import asyncio
from collections import defaultdict
from itertools import pairwise
from typing import Any

from temporalio.client import WorkflowExecutionStatus

from sevenfold.contracts.events.event_driven import (
    AcquireInput,
    SemaphoreRef,
    SemaphoreRequest,
    SemaphoreState,
    build_reaction_id,
    ordering_workflow_id,
)
from sevenfold.contracts.identity import build_workflow_id
from tests.support.agents import SEEN
from tests.support.events import EVENTS, event, published, subscribed, tree, wait_until_settled
from tests.support.processes import until
from tests.support.stack import Stack


def seen_by(who: str) -> dict[Any, list[Any]]:
    """The numbers of each key's events in the order of their first calls: a call may be repeated."""
    found: dict[Any, dict[Any, None]] = defaultdict(dict)
    for name, data, _, _ in SEEN:
        if name == who:
            found[data["key"]].setdefault(data["n"])
    return {key: list(numbers) for key, numbers in found.items()}


async def reaction_id(stack: Stack, event_id: str) -> str:
    """The id of an event's first reaction, once it has started."""
    async with asyncio.timeout(20):
        while not (reactions := (await tree(stack.http, event_id))["reactions"]):
            await asyncio.sleep(0.1)
    return str(reactions[0]["id"])


async def test_ten_keys_of_twelve_events_each_stay_in_order(stack: Stack) -> None:
    """In batches over two of the keys' events at a time, so that a batch holds several of one key."""
    await subscribed(stack, "ordered", "t.ordered", "witness", params={"who": "ordered"}, orderBy="data.key")

    async def send(pair: int) -> None:
        for n in range(0, 12, 6):
            keys = (2 * pair, 2 * pair + 1)
            batch = [event("t.ordered", {"key": key, "n": n + step}) for step in range(6) for key in keys]
            answer = await stack.http.post(EVENTS, json=batch)
            assert answer.json()["accepted"] == 12, answer.text

    await asyncio.gather(*map(send, range(5)))
    await until(lambda: sum(map(len, seen_by("ordered").values())) == 120, seconds=120)
    assert seen_by("ordered") == {key: list(range(12)) for key in range(10)}
    by_key = defaultdict(list)
    for who, data, began, ended in SEEN:
        if who == "ordered":
            by_key[data["key"]].append((data["n"], began, ended))
    for turns in by_key.values():
        assert all(ended <= began for (one, _, ended), (other, began, _) in pairwise(turns) if one != other)


async def test_other_keys_do_not_wait_and_a_poison_event_releases_the_next(stack: Stack) -> None:
    await subscribed(stack, "turns", "t.turns", "choosy", orderBy="subject")
    poison = await published(stack.http, event("t.turns", {"poison": True}, subject="a"))
    after = await published(stack.http, event("t.turns", {"poison": False}, subject="a"))
    without = await published(stack.http, event("t.turns", {"poison": False}))
    assert (await wait_until_settled(stack.http, without))["reactions"][0]["status"] == "completed"
    assert (await wait_until_settled(stack.http, poison))["reactions"][0]["status"] == "failed"
    assert (await wait_until_settled(stack.http, after))["reactions"][0]["status"] == "completed"


async def test_event_releases_the_semaphore_of_a_removed_subscription(stack: Stack) -> None:
    await subscribed(stack, "kept", "t.kept", "careful", params={"seconds": 60}, orderBy="data.key")
    first, second = [await published(stack.http, event("t.kept", {"key": "k", "n": n})) for n in range(2)]
    await reaction_id(stack, first)
    # the second waits; ingest had also queued it at the semaphore of a subscription that was removed since
    semaphore_id = ordering_workflow_id("default", "removed", "=k")
    entry = SemaphoreRequest(
        semaphore=SemaphoreRef(id=semaphore_id, capacity=1, is_ordered=True),
        event_workflow_id=build_workflow_id("default", second),
        reaction_workflow_id="default:none",
    )
    await stack.temporal.start_workflow(
        "OrderingSemaphore",
        SemaphoreState(capacity=1),
        id=semaphore_id,
        task_queue=f"{stack.settings.task_queue}-events",
        start_signal="acquire",
        start_signal_args=[AcquireInput(requests=[entry])],
    )
    await subscribed(stack, "removed", "t.removed", "echo", orderBy="data.key")
    passing = await published(stack.http, event("t.removed", {"key": "k"}))
    assert (await wait_until_settled(stack.http, passing))["reactions"][0]["status"] == "completed"
    for waiting in (second, first):
        await stack.http.post(f"/api/agent/runs/{waiting}/cancel")
    await stack.http.post(f"/api/agent/runs/{build_reaction_id('default', first, 'kept')}/cancel")


async def test_cancelled_or_terminated_holder_releases_its_semaphore(stack: Stack) -> None:
    await subscribed(stack, "stopped", "t.stopped", "careful", params={"seconds": 60}, orderBy="data.key")
    first, second, third = [await published(stack.http, event("t.stopped", {"key": "k", "n": n})) for n in range(3)]

    inside = await reaction_id(stack, first)
    assert (await tree(stack.http, second))["reactions"] == [], "it waits for its turn"
    await stack.http.post(f"/api/agent/runs/{inside}/cancel")
    inside = await reaction_id(stack, second)
    waiting = stack.temporal.get_workflow_handle(build_workflow_id("default", third))
    await waiting.signal("cancel")
    async with asyncio.timeout(30):
        while (await waiting.describe()).status is not WorkflowExecutionStatus.CANCELED:
            await asyncio.sleep(0.1)
    await stack.temporal.get_workflow_handle(build_workflow_id("default", inside)).terminate()
    # one that was terminated leaves no word; whoever cannot wait a minute lets the next one in by hand
    semaphore = stack.temporal.get_workflow_handle(ordering_workflow_id("default", "stopped", "=k"))
    await semaphore.signal("release", build_workflow_id("default", second))
    last = await published(stack.http, event("t.stopped", {"key": "k", "n": 3}))
    await stack.http.post(f"/api/agent/runs/{await reaction_id(stack, last)}/cancel")
    async with asyncio.timeout(20):
        assert (await semaphore.describe()).status is WorkflowExecutionStatus.RUNNING
        await semaphore.result()


async def test_semaphore_releases_a_terminated_holder_while_events_keep_arriving(stack: Stack) -> None:
    """A holder was terminated; arriving events do not postpone the check of the holders."""
    await subscribed(stack, "steady", "t.steady", "careful", params={"seconds": 0.2}, orderBy="data.key")
    await subscribed(stack, "steady", "t.steady", "careful", params={"seconds": 60}, orderBy="data.key")
    first = await published(stack.http, event("t.steady", {"key": "k"}))
    inside = await reaction_id(stack, first)
    await subscribed(stack, "steady", "t.steady", "echo", orderBy="data.key")
    await stack.temporal.get_workflow_handle(build_workflow_id("default", inside)).terminate()
    coming = []
    async with asyncio.timeout(45):
        while True:
            coming.append(await published(stack.http, event("t.steady", {"key": "k", "n": len(coming)})))
            await asyncio.sleep(2)
            found = await tree(stack.http, coming[0])
            if found["reactions"] and found["reactions"][0]["status"] == "completed":
                break
    for one in coming:
        await wait_until_settled(stack.http, one)


async def test_self_published_event_acquires_no_semaphore(stack: Stack) -> None:
    """It matches the filter of the subscription that published it, and is refused before it waits for anything."""
    await subscribed(stack, "narcissus", "t.echoing", "echo", publishes="t.echoing", orderBy="subject")
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        found = await wait_until_settled(stack.http, await published(stack.http, event("t.echoing", subject="s")))
        assert [one["status"] for one in found["reactions"]] == ["completed"]
    assert asyncio.get_running_loop().time() - began < 20


async def test_cancelled_event_releases_all_its_semaphores(stack: Stack) -> None:
    for name in ("turns-a", "turns-b"):
        await subscribed(stack, name, "t.two-orders", "careful", params={"seconds": 60}, orderBy="subject")
    first = await published(stack.http, event("t.two-orders", subject="s"))
    await until(lambda: _two_reactions(stack, first))
    second = await published(stack.http, event("t.two-orders", subject="s"))
    await asyncio.sleep(0.5)
    await stack.http.post(f"/api/agent/runs/{second}/cancel")
    for reaction in (await tree(stack.http, first))["reactions"]:
        await stack.http.post(f"/api/agent/runs/{reaction['id']}/cancel")
    for name in ("turns-a", "turns-b"):
        semaphore = stack.temporal.get_workflow_handle(ordering_workflow_id("default", name, "=s"))
        await asyncio.wait_for(semaphore.result(), 30)


async def _two_reactions(stack: Stack, event_id: str) -> bool:
    return len((await tree(stack.http, event_id))["reactions"]) == 2
