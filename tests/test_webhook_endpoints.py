"""Stored webhook endpoints: their life, what starts do with them, and their events."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.webhooks.delivery import EndpointState, delivery_workflow_id
from sevenfold.contracts.webhooks.endpoints import EndpointResult, endpoints_workflow_id
from tests.support.events import EVENTS, SUBSCRIPTIONS, event, published
from tests.support.processes import until
from tests.support.receivers import SECRET, Receiver, running_receiver, simple
from tests.support.stack import Stack

ENDPOINTS = "/api/agent/webhooks/endpoints"
DELIVERIES = "/api/agent/webhooks/deliveries"


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


async def create(stack: Stack, url: str, name: str, **body: Any) -> dict[str, Any]:
    answer = await stack.http.post(ENDPOINTS, json={"url": url, "name": name, **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return dict(answer.json())


async def change(stack: Stack, endpoint: dict[str, Any], path: str = "", **body: Any) -> dict[str, Any]:
    method = "POST" if path else "PATCH"
    answer = await stack.http.request(method, f"{ENDPOINTS}/{endpoint['id']}{path}", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def start(stack: Stack, path: str = "tasks", **body: Any) -> str:
    answer = await stack.http.post(f"/api/agent/{path}", json={"task": "work", "agent": "echo", **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["taskId"])


async def delivery(stack: Stack, run_id: str, *states: str, update: int | None = None) -> dict[str, Any]:
    """The run's delivery, once it is in one of the states."""
    path = f"{DELIVERIES}/{parse_public_id(delivery_workflow_id(f'default:{run_id}', update=update))}"
    async with asyncio.timeout(30):
        while True:
            answer = await stack.http.get(path)
            if answer.status_code == 200 and answer.json()["state"] in states:
                return dict(answer.json())
            await asyncio.sleep(0.05)


async def test_endpoint_gets_the_outcome_and_no_secret_travels(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/crm"), "crm")
    assert created["secret"].startswith("whsec_")
    run_id = await start(stack, webhookEndpoint="crm")
    (post,) = await receiver.received("/crm")
    assert list(post.json) == ["taskId", "status", "result"], "as with a URL"
    post.check(created["secret"])
    assert post.headers["webhook-event"] == "completed"
    assert post.headers["webhook-sequence"] == "1"
    found = await delivery(stack, run_id, "delivered")
    assert (found["endpointId"], found["event"], found["sequence"]) == (created["id"], "completed", 1)
    for path in ("", f"/{created['id']}"):
        answer = await stack.http.get(f"{ENDPOINTS}{path}")
        assert created["secret"] not in answer.text
        assert "sf1." not in answer.text


async def test_url_of_an_endpoint_is_sealed_and_shown_without_its_query(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/credential?key=planted-key"), "credential")
    shown = receiver.url("/credential?***")
    assert created["url"] == shown
    assert (await change(stack, created, url=receiver.url("/credential?key=planted-other")))["url"] == shown
    assert (await change(stack, created, "/test"))["succeeded"]
    run_id = await start(stack, webhookEndpoint="credential")
    done = await delivery(stack, run_id, "delivered")
    for workflow_id in (endpoints_workflow_id("default"), f"default:{run_id}", f"default:{done['id']}"):
        handle = stack.temporal.get_workflow_handle(workflow_id)
        raw = (await handle.fetch_history()).to_json() + str((await handle.describe()).raw_description)
        assert base64.b64encode(b"planted-").decode()[:-2] not in raw
        assert "planted-" not in raw
    assert (await stack.http.delete(f"{ENDPOINTS}/{created['id']}")).status_code == 204


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("query", {"query": "hi"}),
        ("jobs", {"task": "x", "data": {"text": "a"}}),
        ("jobs", {"task": "x", "agent": "item", "data": {"items": ["a", "b"]}}),
        ("tasks", {"task": "x"}),
        ("stream", {"query": "hi"}),
        ("hybrid", {"query": "hi"}),
        ("analyze", {"document": "text", "agent": "builtin"}),
    ],
)
async def test_every_pattern_takes_an_endpoint_with_all_events(
    stack: Stack, receiver: Receiver, path: str, body: dict[str, Any]
) -> None:
    name = f"every-{path}-{len(str(body))}"
    created = await create(stack, receiver.url(f"/{name}"), name, events=["completed", "started", "progress"])
    assert created["events"] == ["started", "progress", "completed"]
    answer = await stack.http.post(f"/api/agent/{path}", json={"agent": "echo", **body, "webhookEndpoint": name})
    assert answer.status_code in (200, 202), answer.text

    async def is_completed() -> bool:
        return any(post.headers["webhook-event"] == "completed" for post in receiver.at(f"/{name}"))

    await until(is_completed, seconds=20)
    await asyncio.sleep(0.2)
    posts = sorted(receiver.at(f"/{name}"), key=lambda post: int(post.headers["webhook-sequence"]))
    assert [post.headers["webhook-sequence"] for post in posts] == [str(n + 1) for n in range(len(posts))]
    assert posts[0].json["event"] == "started"
    assert posts[0].json["status"] == "processing"
    assert posts[0].json["sequence"] == 1
    assert posts[-1].headers["webhook-event"] == "completed"
    assert len({post.id for post in posts}) == len(posts)
    for post in posts:
        post.check(created["secret"])


async def test_default_endpoint_applies_to_its_agents(stack: Stack, receiver: Receiver) -> None:
    first = await create(stack, receiver.url("/first"), "first-default", isDefault=True, agents=["echo"])
    second = await create(stack, receiver.url("/second"), "second-default", isDefault=True, agents=["echo"])
    try:
        listed = {one["id"]: one["isDefault"] for one in (await stack.http.get(ENDPOINTS)).json()["items"]}
        assert (listed[first["id"]], listed[second["id"]]) == (False, True)
        run_id = await start(stack)
        (post,) = await receiver.received("/second")
        assert post.json["taskId"] == run_id
        own = await start(stack, webhookUrl=receiver.url("/own"), webhookSecret=SECRET)
        (post,) = await receiver.received("/own")
        post.check()
        assert "webhook-sequence" not in post.headers
        other = await start(stack, agent="careful", params={"seconds": 0.1})
        await stack.run_until(other, "completed")
        assert (await stack.run(other))["webhook"] is None
        assert [post.json["taskId"] for post in receiver.at("/second")] == [run_id]
        assert own not in str(receiver.at("/second"))
    finally:
        assert (await change(stack, second, isDefault=False))["isDefault"] is False
    later = await start(stack)
    await stack.run_until(later, "completed")
    assert (await stack.run(later))["webhook"] is None


async def test_rotation_signs_with_both_until_the_overlap_ends(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/rotated"), "rotated")
    rotated = await change(stack, created, "/rotate", overlapSeconds=86_400)
    assert rotated["secret"] != created["secret"]
    assert [one["expiresAt"] is None for one in rotated["secrets"]] == [True, False]
    end = datetime.fromisoformat(rotated["secrets"][1]["expiresAt"])
    assert timedelta(hours=23, minutes=59) < end - datetime.now(UTC) <= timedelta(hours=24)
    await start(stack, webhookEndpoint="rotated")
    (post,) = await receiver.received("/rotated")
    for secret in (created["secret"], rotated["secret"]):
        post.check(secret)
    last = await change(stack, created, "/rotate", overlapSeconds=0)
    await asyncio.sleep(0.6)  # a worker's cache
    await start(stack, webhookEndpoint="rotated")
    _, post = await receiver.received("/rotated", 2)
    post.check(last["secret"])
    for secret in (created["secret"], rotated["secret"]):
        with pytest.raises(Exception, match="signature"):
            post.check(secret)


async def test_sample_shows_what_the_receiver_answered(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/sample"), "sample")
    receiver.by_path["/sample"] = simple(418, body=b"short and stout" * 1_000)
    failed = await change(stack, created, "/test")
    assert (failed["succeeded"], failed["status"]) == (False, 418)
    assert failed["answer"] == ("short and stout" * 1_000)[:1_000]
    assert "418" in failed["reason"]
    assert failed["milliseconds"] >= 0
    receiver.by_path["/sample"] = simple(200, body=b"thanks")
    worked = await change(stack, created, "/test")
    assert (worked["succeeded"], worked["answer"], worked["reason"]) == (True, "thanks", None)
    post = receiver.at("/sample")[-1]
    post.check(created["secret"])
    assert post.id == worked["webhookId"]
    assert post.json == {"event": "test", "endpoint": "sample", "status": "test"}


async def test_disabled_endpoint_gets_tests_only(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/off"), "off")
    disabled = await change(stack, created, "/disable")
    assert disabled["disabled"]["reason"] == "It was disabled by hand."
    await asyncio.sleep(0.6)
    run_id = await start(stack, webhookEndpoint="off")
    dead = await delivery(stack, run_id, "exhausted")
    assert "off is disabled" in dead["reason"]
    assert dead["attempts"] == 0
    await stack.http.post(f"{DELIVERIES}/{dead['id']}/redeliver")
    await asyncio.sleep(0.5)
    assert receiver.at("/off") == []
    assert (await change(stack, created, "/test"))["succeeded"]
    assert (await stack.http.get(f"{ENDPOINTS}/{created['id']}")).json()["disabled"] is None
    await stack.http.post(f"{DELIVERIES}/{dead['id']}/redeliver")
    await delivery(stack, run_id, "delivered")
    assert (await change(stack, created, "/disable"))["disabled"] is not None
    assert (await change(stack, created, "/enable"))["disabled"] is None


async def test_long_failure_disables_the_endpoint_with_an_event(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/broken"), "broken")
    receiver.by_path["/broken"] = 500
    # what three days of failures leave behind
    handle = stack.temporal.get_workflow_handle(endpoints_workflow_id("default"))
    since = datetime.now(UTC) - timedelta(hours=73)
    stored = (await stack.services.webhook_endpoints.load("default"))[created["id"]]
    await handle.execute_update("remove", created["id"])
    health = EndpointState(failing_since=since, failures=4)
    await handle.execute_update("create", stored.model_copy(update={"health": health}))
    await asyncio.sleep(0.6)
    run_id = await start(stack, webhookEndpoint="broken")

    async def is_disabled() -> bool:
        return (await stack.http.get(f"{ENDPOINTS}/{created['id']}")).json()["disabled"] is not None

    await until(is_disabled, seconds=20)
    seen = (await stack.http.get(f"{ENDPOINTS}/{created['id']}")).json()
    assert seen["disabled"]["reason"] == f"Every delivery has failed since {since:%Y-%m-%d %H:%M} UTC."
    dead = await delivery(stack, run_id, "exhausted")
    assert "is disabled" in dead["reason"]
    assert dead["attempts"] < 3, "the schedule has three"
    await change(stack, created, "/enable")

    async def is_published() -> bool:
        listed = (await stack.http.get(EVENTS, params={"limit": 50})).json()["items"]
        seen = {one["event"]["type"] for one in listed if one["event"].get("subject") == "broken"}
        return seen == {"webhook.endpoint.disabled", "webhook.endpoint.enabled"}

    await until(is_published, seconds=20)


async def test_repeated_failures_write_no_history(stack: Stack, receiver: Receiver) -> None:
    receiver.by_path["/noisy"] = 500
    await create(stack, receiver.url("/noisy"), "noisy")
    handle = stack.temporal.get_workflow_handle(endpoints_workflow_id("default"))
    for _ in range(3):
        await delivery(stack, await start(stack, webhookEndpoint="noisy"), "exhausted")
    await asyncio.sleep(0.6)
    before = (await handle.describe()).history_length
    for _ in range(4):
        await delivery(stack, await start(stack, webhookEndpoint="noisy"), "exhausted")
    assert (await handle.describe()).history_length == before
    (noisy,) = [one for one in (await stack.http.get(ENDPOINTS)).json()["items"] if one["name"] == "noisy"]
    assert noisy["failingSince"] is not None
    receiver.by_path["/noisy"] = 204
    await delivery(stack, await start(stack, webhookEndpoint="noisy"), "delivered")

    async def has_recovered() -> bool:
        listed = (await stack.http.get(ENDPOINTS)).json()["items"]
        return [one["failingSince"] for one in listed if one["name"] == "noisy"] == [None]

    await until(has_recovered)


async def test_figures_come_from_the_deliveries(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/figures"), "figures")
    empty = (await stack.http.get(f"{ENDPOINTS}/{created['id']}")).json()["statistics"]
    assert (empty["deliveries"], empty["attempts"], empty["successRate"]) == (0, 0, None)
    receiver.by_path["/figures"] = 500
    await delivery(stack, await start(stack, webhookEndpoint="figures"), "exhausted")
    receiver.by_path["/figures"] = 204
    await delivery(stack, await start(stack, webhookEndpoint="figures"), "delivered")

    async def are_there() -> bool:
        found = (await stack.http.get(f"{ENDPOINTS}/{created['id']}")).json()["statistics"]
        return bool(found["attempts"] == 4 and found["p50Milliseconds"] is not None)

    await until(are_there, seconds=20)  # visibility lags
    found = (await stack.http.get(f"{ENDPOINTS}/{created['id']}")).json()["statistics"]
    assert (found["deliveries"], found["succeeded"], found["successRate"]) == (2, 1, 0.25)
    assert found["p95Milliseconds"] >= found["p50Milliseconds"]
    listed = (await stack.http.get(DELIVERIES, params={"endpoint": created["id"]})).json()["items"]
    assert {one["endpointId"] for one in listed} == {created["id"]}
    assert len(listed) == 2


async def test_deletion_ends_open_deliveries_and_a_new_url_takes_them(stack: Stack, receiver: Receiver) -> None:
    receiver.by_path["/old"] = simple(503, ("retry-after", "3600"))
    moved = await create(stack, receiver.url("/old"), "moved")
    deleted = await create(stack, receiver.url("/old"), "deleted")
    runs = {name: await start(stack, webhookEndpoint=name) for name in ("moved", "deleted")}
    waiting = {name: await delivery(stack, run_id, "retrying") for name, run_id in runs.items()}
    await change(stack, moved, url=receiver.url("/new"))
    assert (await stack.http.delete(f"{ENDPOINTS}/{deleted['id']}")).status_code == 204
    await asyncio.sleep(0.6)
    for one in waiting.values():
        await stack.http.post(f"{DELIVERIES}/{one['id']}/redeliver")
    await delivery(stack, runs["moved"], "delivered")
    (post,) = receiver.at("/new")
    post.check(moved["secret"])
    dead = await delivery(stack, runs["deleted"], "exhausted")
    assert dead["reason"] == "The endpoint was deleted."
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/enable"), ("POST", "/disable")):
        answer = await stack.http.request(method, f"{ENDPOINTS}/{deleted['id']}{path}")
        assert answer.status_code == 404, (method, path)
    answer = await stack.http.post("/api/agent/tasks", json={"task": "x", "webhookEndpoint": "deleted"})
    assert answer.status_code == 422


async def test_reactions_of_a_subscription_go_to_its_endpoint(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/reacted"), "reacted", events=["started", "completed"])
    terms = {"filter": {"exact": {"type": "hook.t"}}, "agent": "echo", "task": "work"}
    path = f"{SUBSCRIPTIONS}/hooked"
    for wrong in (
        {"webhookEndpoint": "nobody"},
        {"webhookEndpoint": "reacted", "webhookUrl": "https://example.com/"},
    ):
        answer = await stack.http.put(path, json={**terms, **wrong})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/webhookEndpoint"
    view = (await stack.http.put(path, json={**terms, "webhookEndpoint": "reacted"})).json()
    assert view["webhookEndpoint"] == "reacted"
    assert "webhookUrl" not in view
    await change(stack, created, name="renamed")
    await asyncio.sleep(0.6)
    assert (await stack.http.get(path)).json()["webhookEndpoint"] == "renamed"
    await published(stack.http, event("hook.t", {"n": 1}))
    posts = await receiver.received("/reacted", 2)
    posts = sorted(posts, key=lambda post: post.headers["webhook-sequence"])
    assert [post.headers["webhook-event"] for post in posts] == ["started", "completed"]
    assert posts[0].json["reactionId"] == posts[1].json["reactionId"]
    for post in posts:
        post.check(created["secret"])
    await stack.http.delete(f"{ENDPOINTS}/{created['id']}")
    await asyncio.sleep(0.6)
    assert (await stack.http.get(path)).json()["webhookEndpoint"] == created["id"]
    await published(stack.http, event("hook.t", {"n": 2}))

    async def is_dead_letter() -> bool:
        listed = (await stack.http.get(DELIVERIES, params={"endpoint": created["id"]})).json()["items"]
        return any(one["reason"] == "The endpoint was deleted." for one in listed)

    await until(is_dead_letter, seconds=20)
    await stack.http.delete(path)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": "https://10.0.0.1/x"}, "/url"),
        ({"url": "https://user:pw@example.com/"}, "/url"),
        ({"url": "https://[::ffff:169.254.169.254]/"}, "/url"),
        ({"url": "http://169.254.169.254/"}, "/url"),
        ({"url": ""}, "/url"),
        ({"url": None}, "/url"),
        ({"name": "Crm"}, "/name"),
        ({"name": "a\r\nb"}, "/name"),
        ({"name": "x" * 65}, "/name"),
        ({"name": "../x"}, "/name"),
        ({"events": []}, "/events"),
        ({"events": ["ended"]}, "/events/0"),
        ({"agents": ["nobody"]}, "/agents/0"),
        ({"agents": ["echo", "'; --"]}, "/agents/1"),
        ({"isDefault": "maybe"}, "/isDefault"),
        ({"secret": SECRET}, "/secret"),
    ],
)
async def test_invalid_endpoint_names_the_field(stack: Stack, body: dict[str, Any], pointer: str) -> None:
    answer = await stack.http.post(ENDPOINTS, json={"name": "hostile", "url": "https://example.com/", **body})
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_conflicts_and_unknown_endpoints(stack: Stack, receiver: Receiver) -> None:
    created = await create(stack, receiver.url("/c"), "taken", agents=["echo"])
    other = await create(stack, receiver.url("/c"), "other")
    answer = await stack.http.post(ENDPOINTS, json={"name": "taken", "url": receiver.url("/c")})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/endpoint-exists")
    answer = await stack.http.patch(f"{ENDPOINTS}/{other['id']}", json={"name": "taken"})
    assert answer.status_code == 409
    answer = await stack.http.patch(f"{ENDPOINTS}/{other['id']}", json={"url": None})
    assert answer.json()["errors"][0]["pointer"] == "/url"
    answer = await stack.http.patch(f"{ENDPOINTS}/{other['id']}", json={"url": "https://10.0.0.1/"})
    assert answer.json()["errors"][0]["pointer"] == "/url"
    assert (await change(stack, created, agents=None))["agents"] is None
    assert (await change(stack, created, agents=["echo"]))["agents"] == ["echo"]
    for body in (
        {"webhookEndpoint": "nobody"},
        {"webhookEndpoint": "taken", "agent": "careful"},
        {"webhookEndpoint": "taken", "webhookUrl": "https://example.com/", "webhookSecret": SECRET},
        {"webhookEndpoint": "taken", "webhookSecret": SECRET},
        {"webhookEndpoint": "NO"},
    ):
        answer = await stack.http.post("/api/agent/tasks", json={"task": "x", "agent": "echo", **body})
        assert answer.status_code == 422, body
        assert answer.json()["errors"][0]["pointer"] == "/webhookEndpoint", body
    for wrong in (f"whe_{'a' * 26}", "x", "default:endpoints"):
        assert (await stack.http.get(f"{ENDPOINTS}/{wrong}")).status_code == 404


async def test_full_store_is_a_conflict(stack: Stack) -> None:
    handle = stack.temporal.get_workflow_handle(endpoints_workflow_id("default"))
    answer = None
    created = []
    for number in range(120):
        url = f"https://example.com/{'x' * 2_000}"
        answer = await stack.http.post(ENDPOINTS, json={"name": f"full-{number}", "url": url})
        if answer.status_code != 201:
            break
        created.append(answer.json()["id"])
    assert answer is not None
    assert answer.json()["type"] == "/problems/endpoints-full"
    for one in created:
        await handle.execute_update("remove", one)
    await handle.signal("record_result", EndpointResult(id="whe_nobody", succeeded=False))  # changes nothing
