"""Several deliveries of a run: order and sequences, under retries and kill -9."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.webhooks.delivery import delivery_workflow_id, updates_workflow_id
from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.receivers import Post, Receiver, Send, hangs, running_receiver, simple
from tests.support.stack import Stack, http_client, make_settings, running_stack, sevenfold, until_ready
from tests.test_webhook_faults import KEY

ENDPOINTS = "/api/agent/webhooks/endpoints"
ALL = ["started", "progress", "completed"]


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


async def start(http: httpx.AsyncClient, url: str, name: str, events: list[str] = ALL, **body: Any) -> str:
    answer = await http.post(ENDPOINTS, json={"url": url, "name": name, "events": events})
    assert answer.status_code == 201, answer.text
    body = {"task": "work", "agent": "simulator", **body, "webhookEndpoint": name}
    answer = await http.post("/api/agent/tasks", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["taskId"])


def sequence(post: Post) -> int:
    return int(post.headers["webhook-sequence"])


async def completed(receiver: Receiver, path: str, seconds: float = 40) -> list[Post]:
    """The posts once the last one has come, in their order."""
    await until(lambda: any(p.headers["webhook-event"] == "completed" for p in receiver.at(path)), seconds)
    await asyncio.sleep(0.5)
    return sorted(receiver.at(path), key=sequence)


async def test_updates_come_in_order_and_not_too_often(stack: Stack, receiver: Receiver) -> None:
    run_id = await start(
        stack.http, receiver.url("/order"), "order", params={"seconds": 3, "steps": 60, "text": "w " * 60}
    )
    posts = await completed(receiver, "/order")
    assert [sequence(post) for post in posts] == list(range(1, len(posts) + 1))
    assert receiver.at("/order") == posts, "they arrive in this order, too"
    assert [post.headers["webhook-event"] for post in posts] == [
        "started",
        *["progress"] * (len(posts) - 2),
        "completed",
    ]
    assert 5 <= len(posts) <= 9, "about one in half a second"
    progress = posts[1:-1]
    assert all(later.at - earlier.at >= 0.45 for earlier, later in pairwise(progress))
    assert all(a.json["progress"] < b.json["progress"] for a, b in pairwise(progress))
    first = progress[0].json
    assert list(first) == ["taskId", "status", "event", "sequence", "progress", "note"]
    assert (first["taskId"], first["status"], first["sequence"]) == (run_id, "processing", 2)
    assert "of 60" in first["note"]
    assert list(posts[-1].json) == ["taskId", "status", "result"]
    assert len({post.id for post in posts}) == len(posts)
    webhook: Any = (await stack.run(run_id))["webhook"]
    assert webhook["deliveryId"] == posts[-1].id
    listed = (await stack.http.get("/api/agent/webhooks/deliveries", params={"run": run_id})).json()["items"]
    assert {(one["event"], one["sequence"]) for one in listed} <= {
        (post.headers["webhook-event"], sequence(post)) for post in posts
    }


async def test_events_choose_what_is_delivered(stack: Stack, receiver: Receiver) -> None:
    params = {"seconds": 1, "steps": 4}
    for events in (["started"], ["started", "completed"], ["progress"], ["progress", "completed"]):
        name = "-".join(events)
        run_id = await start(stack.http, receiver.url(f"/{name}"), name, events, params=params)
        run = await stack.run_until(run_id, "completed")
        assert (run["webhook"] is None) == ("completed" not in events)
        await stack.temporal.get_workflow_handle(updates_workflow_id(f"default:{run_id}")).result()
        await asyncio.sleep(0.5)
        posts = sorted(receiver.at(f"/{name}"), key=sequence)
        assert {post.headers["webhook-event"] for post in posts} == set(events)
        assert [sequence(post) for post in posts] == list(range(1, len(posts) + 1))


@pytest.mark.parametrize("agent", ["hopeless", "careful"])
async def test_failed_and_cancelled_runs_are_the_last_delivery(stack: Stack, receiver: Receiver, agent: str) -> None:
    run_id = await start(stack.http, receiver.url(f"/{agent}"), agent, agent=agent, params={"seconds": 30})
    if agent == "careful":
        await receiver.received(f"/{agent}")
        await stack.http.post(f"/api/agent/runs/{run_id}/cancel")
    posts = await completed(receiver, f"/{agent}")
    assert posts[0].json["event"] == "started"
    assert posts[-1].json["status"] == ("failed" if agent == "hopeless" else "cancelled")
    assert [sequence(post) for post in posts] == list(range(1, len(posts) + 1))


async def test_receiver_that_fails_gets_the_latest_progress_and_no_gap(stack: Stack, receiver: Receiver) -> None:
    """The first start and the first progress are answered 500 once: both come again, under their ids."""
    seen: set[int] = set()

    async def refuses_first(send: Send) -> None:
        number = sequence(receiver.at("/retried")[-1])
        await simple(204 if number in seen or number > 2 else 500)(send)
        seen.add(number)

    receiver.by_path["/retried"] = refuses_first
    await start(
        stack.http,
        receiver.url("/retried"),
        "retried",
        params={"seconds": 3, "steps": 30, "failures": 1, "failAt": 9},
    )
    await completed(receiver, "/retried")
    ids: dict[int, set[str]] = {}
    for post in receiver.at("/retried"):
        ids.setdefault(sequence(post), set()).add(post.id)
    assert sorted(ids) == list(range(1, len(ids) + 1))
    assert all(len(one) == 1 for one in ids.values())
    counts = [sum(sequence(post) == number for post in receiver.at("/retried")) for number in (1, 2)]
    assert counts == [2, 2]


async def test_slow_receiver_delays_neither_run_nor_outcome(stack: Stack, receiver: Receiver) -> None:
    async def hangs_on_updates(send: Send) -> None:
        event = receiver.at("/slow")[-1].headers["webhook-event"]
        await (simple(204) if event == "completed" else hangs)(send)

    receiver.by_path["/slow"] = hangs_on_updates
    await start(stack.http, receiver.url("/slow"), "slow", params={"seconds": 2, "steps": 20})
    posts = await completed(receiver, "/slow", seconds=12)
    assert [post.headers["webhook-event"] for post in posts] == ["started", "progress", "completed"]


async def test_progress_that_fails_for_good_pauses_progress(stack: Stack, receiver: Receiver) -> None:
    receiver.by_path["/gone"] = 410
    run_id = await start(stack.http, receiver.url("/gone"), "gone", params={"seconds": 3, "steps": 30})
    await stack.run_until(run_id, "completed")
    posts = await completed(receiver, "/gone")
    assert [post.headers["webhook-event"] for post in posts] == ["started", "progress", "completed"]


async def test_outcome_is_delivered_though_its_updates_were_terminated(stack: Stack, receiver: Receiver) -> None:
    run_id = await start(stack.http, receiver.url("/lost"), "lost", params={"seconds": 3, "steps": 3})
    await receiver.received("/lost")
    await stack.temporal.get_workflow_handle(updates_workflow_id(f"default:{run_id}")).terminate()
    posts = await completed(receiver, "/lost")
    assert posts[-1].json["status"] == "completed"
    assert sequence(posts[-1]) > max(sequence(post) for post in posts[:-1])
    assert posts[-1].id == parse_public_id(delivery_workflow_id(f"default:{run_id}"))


async def test_killed_worker_leaves_no_gap_and_repeats_no_sequence(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, secret_key=KEY)
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        with ExitStack() as processes:
            env = {"TEMPORAL_ADDRESS": address}
            processes.enter_context(sevenfold("api", settings, **env))
            worker = processes.enter_context(sevenfold("worker", settings, **env))
            await until_ready(settings.port)
            async with running_receiver() as receiver:
                await start(http, receiver.url(), "killed", params={"seconds": 8, "steps": 80})
                await receiver.received("/", 4)
                worker.kill()
                before = len(receiver.posts)
                processes.enter_context(sevenfold("worker", settings, **env))
                posts = await completed(receiver, "/", seconds=90)
    ids = {sequence(post): post.id for post in posts}
    assert sorted(ids) == list(range(1, len(ids) + 1))
    assert {(sequence(post), post.id) for post in posts} == set(ids.items()), "a repeated post has its id"
    assert len(set(ids.values())) == len(ids)
    assert len(ids) > before + 2, "progress went on"
    assert posts[0].json["event"] == "started"
    assert posts[-1].json["status"] == "completed"
    assert {post.headers["webhook-event"] for post in posts[1:-1]} == {"progress"}


async def test_a_question_is_delivered_between_start_and_end(tmp_path: Path, receiver: Receiver) -> None:
    config = '[agents.asker]\nkind = "python"\ntarget = "tests.support.durable_agents:asker"\n'
    (tmp_path / "tests").symlink_to(Path(__file__).parent)
    async with running_stack(tmp_path, more_config=config) as stack:
        run_id = await start(
            stack.http,
            receiver.url("/asked"),
            "asked",
            ["started", "input_required", "completed"],
            agent="asker",
            params={"log": str(tmp_path / "log")},
        )
        await stack.run_until(run_id, "input_required")
        await until(lambda: len(receiver.at("/asked")) == 2, 20)
        given = {"responses": {"may-i": {"action": "accept", "content": True}}}
        await stack.http.post(f"/api/agent/runs/{run_id}/responses", json=given)
        posts = await completed(receiver, "/asked")
    assert [(sequence(post), post.headers["webhook-event"]) for post in posts] == [
        (1, "started"),
        (2, "input_required"),
        (3, "completed"),
    ]
    assert posts[1].json["status"] == "input_required"
    assert [one["id"] for one in posts[1].json["requests"]] == ["may-i"]
