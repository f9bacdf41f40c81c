"""Pattern 4 and webhooks of every pattern, over HTTP, to a real receiver."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from standardwebhooks import Webhook as StandardWebhook

from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.webhooks.delivery import delivery_workflow_id
from tests.support.receivers import SECRET, Answer, Receiver, breaks, drips, floods, hangs, running_receiver, simple
from tests.support.stack import Stack

DELIVERIES = "/api/agent/webhooks/deliveries"
TEXT = "Great Title\n\nThe product is excellent. Customers love it. Prices are too high."


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


async def analyze(stack: Stack, url: str, document: Any = TEXT, **body: Any) -> str:
    webhook = {"webhookUrl": url, "webhookSecret": SECRET}
    answer = await stack.http.post("/api/agent/analyze", json={"document": document, **webhook, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["taskId"])


async def delivery(stack: Stack, run_id: str, *states: str, seconds: float = 30) -> dict[str, Any]:
    """The run's delivery, once it is in one of the states."""
    path = f"{DELIVERIES}/{parse_public_id(delivery_workflow_id(f'default:{run_id}'))}"
    async with asyncio.timeout(seconds):
        while True:
            answer = await stack.http.get(path)
            if answer.status_code == 200 and answer.json()["state"] in states:
                return dict(answer.json())
            await asyncio.sleep(0.05)


async def test_webhook_example_of_the_article(stack: Stack, receiver: Receiver) -> None:
    body = {"document": TEXT, "webhookUrl": receiver.url("/article"), "webhookSecret": "whsec_abc123"}
    answer = await stack.http.post("/api/agent/analyze", json=body)
    assert answer.status_code == 202
    task_id = answer.json()["taskId"]
    assert answer.json() == {"taskId": task_id, "status": "processing"}
    assert answer.headers["Location"] == f"/api/agent/tasks/{task_id}"
    (post,) = await receiver.received("/article")
    assert list(post.json) == ["taskId", "status", "result"]
    assert post.json["taskId"] == task_id
    assert post.json["status"] == "completed"
    found = post.json["result"]["data"]
    assert found["title"] == "Great Title"
    assert found["words"] == 11
    assert found["sentiment"]["label"] == "positive"
    assert post.headers["content-type"] == "application/json"
    assert post.headers["x-webhook-signature"].startswith("sha256=")
    post.check("whsec_abc123")
    # the poll endpoint shows the same
    assert (await stack.http.get(f"/api/agent/tasks/{task_id}")).json() == post.json


async def test_run_is_completed_before_the_first_delivery_attempt(stack: Stack, receiver: Receiver) -> None:
    seen: list[str] = []

    async def looks(send: Any) -> None:
        task_id = receiver.at("/order")[0].json["taskId"]
        seen.append(str((await stack.run(task_id))["status"]))
        await simple(204)(send)

    receiver.by_path["/order"] = looks
    task_id = await analyze(stack, receiver.url("/order"))
    done = await delivery(stack, task_id, "delivered")
    assert seen == ["completed"]
    assert done["attempts"] == 1
    assert (await stack.run(task_id))["webhook"] == {
        "state": "delivered",
        "attempts": 1,
        "deliveryId": done["id"],
        "nextAttemptAt": None,
    }


@pytest.mark.parametrize(
    ("path", "body", "id_name"),
    [
        ("query", {"query": "hi", "agent": "echo"}, "queryId"),
        ("jobs", {"task": "x", "agent": "echo", "data": {"text": "a"}}, "jobId"),
        ("jobs", {"task": "x", "agent": "item", "data": {"items": ["a", "b"]}}, "jobId"),
        ("tasks", {"task": "x", "agent": "echo"}, "taskId"),
        ("stream", {"query": "hi", "agent": "echo"}, "streamId"),
    ],
)
async def test_every_pattern_accepts_a_webhook(
    stack: Stack, receiver: Receiver, path: str, body: dict[str, Any], id_name: str
) -> None:
    where = f"/every-{id_name}-{len(str(body))}"
    webhook = {"webhookUrl": receiver.url(where), "webhookSecret": SECRET}
    answer = await stack.http.post(f"/api/agent/{path}", json={**body, **webhook})
    assert answer.status_code in (200, 202), answer.text
    (post,) = await receiver.received(where)
    assert list(post.json) == [id_name, "status", "result"]
    post.check()


async def test_failed_and_cancelled_runs_are_delivered(stack: Stack, receiver: Receiver) -> None:
    await analyze(stack, receiver.url("/failed"), agent="hopeless")
    (post,) = await receiver.received("/failed")
    assert list(post.json) == ["taskId", "status", "error"]
    assert post.json["status"] == "failed"
    assert post.json["error"]["code"] == "AgentRejected"
    task_id = await analyze(stack, receiver.url("/cancelled"), agent="careful", params={"seconds": 20})
    assert (await stack.run(task_id))["webhook"] is not None
    await asyncio.sleep(0.3)
    await stack.http.post(f"/api/agent/runs/{task_id}/cancel")
    (post,) = await receiver.received("/cancelled")
    assert post.json == {"taskId": task_id, "status": "cancelled"}


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        ({"base64": base64.b64encode(b"%PDF-1.4\nnothing").decode()}, "damaged"),
        ({"base64": base64.b64encode(b"PK\x03\x04" + bytes(40)).decode()}, "ZIP"),
        ({"base64": base64.b64encode(b"<html><script>x</script></html>").decode()}, "no text"),
        ("http://127.0.0.1:1/nothing.pdf", None),
    ],
)
async def test_unreadable_document_fails_the_run(
    stack: Stack, receiver: Receiver, document: object, detail: str | None
) -> None:
    where = f"/unreadable-{len(str(document))}"
    task_id = await analyze(stack, receiver.url(where), document, timeout=30 if detail else 6)
    (post,) = await receiver.received(where)
    assert post.json["status"] == "failed"
    assert post.json["error"]["code"] == ("DocumentUnreadable" if detail else "DocumentUnavailable")
    assert (detail or "host failed") in post.json["error"]["detail"]
    state = (await stack.http.get(f"/api/agent/tasks/{task_id}")).json()
    assert state["error"] == post.json["error"]


async def test_document_is_fetched_by_its_url(stack: Stack, receiver: Receiver) -> None:
    page = b"<html><title>A page</title><p>The weather is lovely today.</p></html>"
    receiver.by_path["/page"] = simple(200, ("content-type", "text/html"), body=page)
    await analyze(stack, receiver.url("/page-webhook"), receiver.url("/page"))
    (post,) = await receiver.received("/page-webhook")
    assert post.json["result"]["data"]["title"] == "A page"
    assert post.json["result"]["data"]["contentType"] == "text/html"


@pytest.mark.parametrize(
    ("name", "answer", "state", "logged"),
    [
        ("200", simple(200, body=b"thanks"), "delivered", 200),
        ("201", 201, "delivered", 201),
        ("302", simple(302, ("location", "http://169.254.169.254/")), "exhausted", 302),
        ("400", 400, "exhausted", 400),
        ("401", simple(401, body=b"\xff who are you \xf0\x9f\x98\x80"), "exhausted", 401),
        ("410", 410, "exhausted", 410),
        ("500", 500, "exhausted", 500),
        ("breaks", breaks, "delivered", 200),
        ("floods", floods, "delivered", 200),
    ],
)
async def test_receiver_status_decides_the_delivery(
    stack: Stack, receiver: Receiver, name: str, answer: Answer, state: str, logged: int
) -> None:
    receiver.by_path[f"/{name}"] = answer
    found = await delivery(stack, await analyze(stack, receiver.url(f"/{name}")), "delivered", "exhausted")
    assert found["state"] == state
    attempts = 1 if state == "delivered" or name == "410" else 3
    assert [attempt["status"] for attempt in found["log"]] == [logged] * attempts
    posts = receiver.at(f"/{name}")
    assert len(posts) == attempts
    assert {post.id for post in posts} == {found["id"]}
    assert len({post.body for post in posts}) == 1
    for post in posts:
        post.check()
    assert all(len(attempt["answer"].encode()) <= 3_000 for attempt in found["log"])
    if state == "exhausted":
        assert str(logged) in found["reason"]


async def test_hanging_and_dripping_receivers_time_out(stack: Stack, receiver: Receiver) -> None:
    """Bounded by 15 s for the answer as a whole; a status that came counts."""
    receiver.by_path |= {"/hangs": hangs, "/drips": drips}
    started_at = time.monotonic()
    hung, dripped = [await analyze(stack, receiver.url(path)) for path in ("/hangs", "/drips")]
    # others are not held up
    await analyze(stack, receiver.url("/beside"))
    await receiver.received("/beside", seconds=12)
    found = await delivery(stack, hung, "retrying")
    assert "did not answer within 15 s" in found["reason"]
    assert found["log"][0]["status"] is None
    assert (await delivery(stack, dripped, "delivered"))["log"][0]["status"] == 200
    assert time.monotonic() - started_at < 50


async def test_both_secrets_sign_during_rotation(stack: Stack, receiver: Receiver) -> None:
    new, old = (f"whsec_{base64.b64encode(bytes([number] * 32)).decode()}" for number in (1, 2))
    await analyze(stack, receiver.url("/rotating"), webhookSecret=new, previousWebhookSecret=old)
    (post,) = await receiver.received("/rotating")
    for secret in (new, old):
        StandardWebhook(secret).verify(post.body, post.headers)
        post.check(secret)


async def test_deliveries_are_listed_and_redelivered(stack: Stack, receiver: Receiver) -> None:
    receiver.by_path["/again"] = 500
    run_id = await analyze(stack, receiver.url("/again"))
    dead = await delivery(stack, run_id, "exhausted")
    assert dead["runId"] == run_id
    assert dead["host"] == "127.0.0.1"
    filters = {"state": "exhausted", "run": run_id, "host": "127.0.0.1", "since": "2020-01-01T00:00:00Z"}
    async with asyncio.timeout(30):  # visibility lags
        while not (items := (await stack.http.get(DELIVERIES, params=filters)).json()["items"]):
            await asyncio.sleep(0.1)
    assert [item["id"] for item in items] == [dead["id"]]
    assert "log" not in items[0]
    receiver.by_path["/again"] = 204
    answer = await stack.http.post(f"{DELIVERIES}/{dead['id']}/redeliver")
    assert answer.status_code == 202
    found = await delivery(stack, run_id, "delivered")
    assert [attempt["isManual"] for attempt in found["log"]] == [False] * 3 + [True]
    assert {post.id for post in receiver.at("/again")} == {dead["id"]}
    async with asyncio.timeout(30):  # it is listed once, as it is now
        while [
            item["state"] for item in (await stack.http.get(DELIVERIES, params={"run": run_id})).json()["items"]
        ] != ["delivered"]:
            await asyncio.sleep(0.1)
    assert (await stack.http.get(DELIVERIES, params=filters)).json()["items"] == []


async def test_exhausted_deliveries_since_a_time_are_redelivered(stack: Stack, receiver: Receiver) -> None:
    receiver.by_path["/many"] = 410
    runs = [await analyze(stack, receiver.url("/many")) for _ in range(5)]
    dead = [await delivery(stack, run_id, "exhausted") for run_id in runs]
    since = min(one["createdAt"] for one in dead)
    receiver.by_path["/many"] = 204
    redelivered = 0
    async with asyncio.timeout(20):
        while redelivered < 5:
            answer = await stack.http.post(f"{DELIVERIES}/redeliver", json={"since": since})
            assert answer.status_code == 202
            redelivered += answer.json()["redelivered"]
            assert answer.json()["more"] is False
    assert redelivered == 5
    for run_id in runs:
        await delivery(stack, run_id, "delivered")
    assert len(receiver.at("/many")) == 10


async def test_waiting_delivery_is_redelivered_at_once(stack: Stack, receiver: Receiver) -> None:
    receiver.by_path["/now"] = simple(503, ("retry-after", "3600"))
    run_id = await analyze(stack, receiver.url("/now"))
    waiting = await delivery(stack, run_id, "retrying")
    assert waiting["nextAttemptAt"] > waiting["createdAt"]
    webhook: Any = (await stack.run(run_id))["webhook"]
    assert webhook["nextAttemptAt"] == waiting["nextAttemptAt"]
    receiver.by_path["/now"] = 204
    await stack.http.post(f"{DELIVERIES}/{waiting['id']}/redeliver")
    assert (await delivery(stack, run_id, "delivered"))["attempts"] == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"webhookUrl": "https://10.0.0.1/x"}, "/webhookUrl"),
        ({"webhookUrl": "https://user:pw@example.com/"}, "/webhookUrl"),
        ({"webhookUrl": "https://example.com:8443/"}, "/webhookUrl"),
        ({"webhookUrl": "https://[::ffff:169.254.169.254]/"}, "/webhookUrl"),
        ({"webhookUrl": "not a url"}, "/webhookUrl"),
        ({"webhookUrl": ""}, "/webhookUrl"),
        ({"webhookUrl": None}, "/webhookUrl"),
        ({"webhookSecret": ""}, "/webhookSecret"),
        ({"webhookSecret": None}, "/webhookSecret"),
        ({"webhookSecret": ["planted"]}, "/webhookSecret"),
        ({"document": "http://169.254.169.254/latest/meta-data"}, "/document"),
        ({"document": {"base64": "!!"}}, "/document/base64"),
        ({"document": {"text": "a", "url": "https://example.com"}}, "/document"),
        ({"document": 5}, "/document"),
    ],
)
async def test_invalid_webhook_request_names_the_field(stack: Stack, body: dict[str, Any], pointer: str) -> None:
    whole = {"document": "text", "webhookUrl": "https://example.com/", "webhookSecret": "planted-secret", **body}
    answer = await stack.http.post("/api/agent/analyze", json=whole)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "planted" not in answer.text


async def test_webhook_needs_url_and_secret(stack: Stack) -> None:
    for body, pointer in (
        ({"webhookUrl": "https://example.com/"}, "/webhookSecret"),
        ({"webhookSecret": "x"}, "/webhookUrl"),
    ):
        answer = await stack.query("hi", agent="echo", **body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_unknown_delivery_is_404(stack: Stack) -> None:
    for delivery_id in (f"whk_{'a' * 26}", f"task_{'a' * 26}", "x"):
        assert (await stack.http.get(f"{DELIVERIES}/{delivery_id}")).status_code == 404
        assert (await stack.http.post(f"{DELIVERIES}/{delivery_id}/redeliver")).status_code == 404
    for params in ({"state": "lost"}, {"since": "5"}, {"host": "a b"}, {"run": "'"}, {"cursor": "x"}):
        assert (await stack.http.get(DELIVERIES, params=params)).status_code == 422, params
    for body in ({}, {"since": 5}, {"since": "soon"}, {"since": "2026-11-01", "state": "x"}):
        assert (await stack.http.post(f"{DELIVERIES}/redeliver", json=body)).status_code == 422, body


async def test_webhook_idempotency_key_finds_the_same_delivery(stack: Stack, receiver: Receiver) -> None:
    body = {"document": TEXT, "webhookUrl": receiver.url("/keyed"), "webhookSecret": SECRET}
    key = {"Idempotency-Key": "analyze-once"}
    answers = await asyncio.gather(
        *(stack.http.post("/api/agent/analyze", json=body, headers=key) for _ in range(20))
    )
    assert len({answer.json()["taskId"] for answer in answers}) == 1
    await delivery(stack, answers[0].json()["taskId"], "delivered")
    assert len(receiver.at("/keyed")) == 1
    # the secret is not part of the request's fingerprint: nothing stored reveals it
    answer = await stack.http.post("/api/agent/analyze", json={**body, "webhookSecret": "other"}, headers=key)
    assert answer.headers["Idempotency-Replayed"] == "true"
