"""Changes of webhook endpoints while tests of them hang, and the sequences of runs that are started again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.receivers import Receiver, hangs, running_receiver
from tests.support.stack import Stack

API = "/api/agent"
ENDPOINTS = f"{API}/webhooks/endpoints"


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


async def create(stack: Stack, url: str, **body: Any) -> dict[str, Any]:
    answer = await stack.http.post(ENDPOINTS, json={"url": url, **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_an_endpoint_without_a_name_is_named_after_its_host(stack: Stack, receiver: Receiver) -> None:
    first, second = [await create(stack, receiver.url("/unnamed")) for _ in range(2)]
    assert first["name"] != second["name"]
    assert first["name"].startswith("127.0.0.1-")
    answer = await stack.http.post(f"{API}/tasks", json={"task": "work", "webhookEndpoint": first["name"]})
    assert answer.status_code == 202
    (post,) = await receiver.received("/unnamed")
    post.check(first["secret"])


async def test_a_secret_is_rotated_without_a_body(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/bodiless"))
    rotated = await stack.http.post(f"{ENDPOINTS}/{created['id']}/rotate")
    assert rotated.status_code == 200, rotated.text
    assert len(rotated.json()["secrets"]) == 2, "both sign for 24 hours"


async def test_a_url_as_it_is_shown_does_not_replace_the_real_one(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/hidden?key=planted"))
    shown = (await stack.http.get(f"{ENDPOINTS}/{created['id']}")).json()
    assert shown["url"].endswith("/hidden?***")
    answer = await stack.http.patch(f"{ENDPOINTS}/{created['id']}", json={"url": shown["url"]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/url"
    assert "hidden" in answer.json()["detail"]


async def test_tests_that_hang_leave_room_for_changes(stack: Stack, receiver: Receiver) -> None:
    receiver.by_path["/hanging"] = hangs
    created = await create(stack, receiver.url("/hanging"))
    url = f"{ENDPOINTS}/{created['id']}"
    tests = [asyncio.create_task(stack.http.post(f"{url}/test")) for _ in range(6)]
    await receiver.received("/hanging", 3)
    refused = [test.result() for test in (await asyncio.wait(tests, timeout=5))[0]]
    assert [answer.status_code for answer in refused] == [429] * 3
    assert all(answer.headers["Retry-After"] for answer in refused)
    assert refused[0].json()["type"] == "/problems/endpoint-tests-open"
    assert (await stack.http.patch(url, json={"events": ["started"]})).status_code == 200
    assert (await stack.http.post(f"{url}/disable")).status_code == 200
    for test in tests:
        test.cancel()
    await asyncio.gather(*tests, return_exceptions=True)
    receiver.by_path["/hanging"] = 204


@pytest.mark.parametrize("events", [["completed"], ["started", "progress", "completed"]], ids=["outcome", "updates"])
async def test_sequences_continue_when_a_run_is_started_again(
    stack: Stack, receiver: Receiver, events: list[str]
) -> None:
    path = f"/again-{len(events)}"
    created = await create(stack, receiver.url(path), events=events)
    body = {"task": "work", "agent": "picky", "webhookEndpoint": created["name"]}
    run_id = (await stack.http.post(f"{API}/tasks", json=body)).json()["taskId"]
    count = 1 if events == ["completed"] else 2
    for generation in range(1, 4):
        await stack.run_until(run_id, "failed")
        await receiver.received(path, count * generation)
        if generation < 3:
            assert (await stack.http.post(f"{API}/runs/{run_id}/retry")).status_code == 202
    posts = receiver.at(path)
    assert sorted(int(post.headers["webhook-sequence"]) for post in posts) == list(range(1, 3 * count + 1))
    assert len({post.headers["webhook-id"] for post in posts}) == len(posts)
