"""Events over HTTP: accepted once, reacted to, derived, listed."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as OtherEvent

from bench.server_sent_events import events as sse
from tests.support import agents
from tests.support.events import (
    EVENTS,
    LETTERS,
    by_subscription,
    event,
    published,
    subscribed,
    tree,
    wait_until_settled,
)
from tests.support.receivers import SECRET, running_receiver
from tests.support.stack import Stack, another_api


async def test_event_is_accepted_once_in_every_content_mode(stack: Stack) -> None:
    """Structured, in binary mode, in a batch and to two APIs: one run."""
    other = OtherEvent({"id": "once", "source": "/tests/once", "type": "t.once", "specversion": "1.0"}, {"a": 1})
    structured, binary = to_structured_event(other, JSONFormat()), to_binary_event(other, JSONFormat())
    batch = b"[" + bytes(structured.body) + b"," + bytes(structured.body) + b"]"
    batch_type = {"content-type": "application/cloudevents-batch+json"}
    statuses = []
    async with another_api(stack) as elsewhere:
        for api in (stack.http, elsewhere.http):
            for headers, body in (
                (structured.headers, structured.body),
                ({**binary.headers, "content-type": "application/json"}, binary.body),
                (batch_type, batch),
            ):
                answer = await api.post(EVENTS, headers=dict(headers), content=bytes(body))
                assert answer.status_code == 202, answer.text
                statuses += [(item["status"], item["id"]) for item in answer.json()["items"]]
    assert [status for status, _ in statuses] == ["accepted"] + ["duplicate"] * 7
    assert len({public for _, public in statuses}) == 1
    found = await tree(stack.http, statuses[0][1])
    assert found["event"]["data"] == {"a": 1}


async def test_hundred_concurrent_duplicates_start_one_run(stack: Stack) -> None:
    cloud_event = event("t.hundred", {"n": 1})
    answers = await asyncio.gather(*(stack.http.post(EVENTS, json=cloud_event) for _ in range(100)))
    counted = [answer.json()["items"][0]["status"] for answer in answers]
    assert sorted(counted) == ["accepted"] + ["duplicate"] * 99


async def test_reused_event_id_with_other_data_is_a_conflict_and_a_dead_letter(stack: Stack) -> None:
    cloud_event = event("t.conflict", {"n": 1})
    first = await published(stack.http, cloud_event)
    answer = await stack.http.post(EVENTS, json={**cloud_event, "data": {"n": 2}})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["runId"] == first
    batch = await stack.http.post(EVENTS, json=[{**cloud_event, "data": {"n": 3}}, cloud_event])
    assert [item["status"] for item in batch.json()["items"]] == ["rejected", "duplicate"]
    async with asyncio.timeout(30):
        while True:
            letters = (await stack.http.get(LETTERS, params={"kind": "rejected"})).json()["items"]
            if sum(first in letter["reason"] for letter in letters) == 2:
                break
            await asyncio.sleep(0.1)
    refused = await stack.http.post(f"{LETTERS}/{letters[0]['id']}/redrive")
    assert refused.status_code == 409


@pytest.mark.parametrize(
    ("headers", "body", "status", "pointer"),
    [
        ({"content-type": "application/cloudevents+json"}, b"{", 400, None),
        ({"content-type": "application/cloudevents+json"}, b'{"specversion":"1.0"}', 422, "/id"),
        ({"content-type": "application/cloudevents+json"}, b"[]", 422, ""),
        ({"content-type": "application/cloudevents+avro"}, b"", 415, None),
        ({"content-type": "application/cloudevents-batch+json"}, b"{}", 422, ""),
        ({"content-type": "text/plain"}, b"hi", 415, None),
        ({}, b"", 415, None),
        ({"ce-id": "1", "ce-source": "/x", "ce-type": "t"}, b"", 422, "/specversion"),
        (
            {"ce-id": "1", "ce-source": "/x", "ce-type": "t", "ce-specversion": "1.0", "ce-Time": "no"},
            b"",
            422,
            "/time",
        ),
        (
            {
                "ce-id": "1",
                "ce-source": "/x",
                "ce-type": "t",
                "ce-specversion": "1.0",
                "content-type": "application/json",
            },
            b"{",
            422,
            "/data",
        ),
    ],
)
async def test_invalid_event_is_refused_with_a_pointer(
    stack: Stack, headers: dict[str, str], body: bytes, status: int, pointer: str | None
) -> None:
    answer = await stack.http.post(EVENTS, headers=headers, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if pointer is not None:
        assert pointer in [error["pointer"] for error in answer.json()["errors"]]


async def test_batch_reports_the_error_of_each_event(stack: Stack) -> None:
    good, large = event("t.batch"), event("t.batch", "x" * 1_000_001)
    answer = await stack.http.post(EVENTS, json=[good, {"id": "7"}, 5, large, good])
    assert answer.status_code == 202
    items = answer.json()["items"]
    assert [item["status"] for item in items[1:4]] == ["rejected"] * 3
    # they are started side by side: which of two equal ones comes first is nobody's promise
    assert sorted(items[n]["status"] for n in (0, 4)) == ["accepted", "duplicate"]
    assert "specversion" in items[1]["detail"]
    assert "1,000,000 bytes" in items[3]["detail"]
    too_many = await stack.http.post(EVENTS, json=[good] * 1_001)
    assert too_many.status_code == 422
    assert (await stack.http.post(EVENTS, json=[])).json()["items"] == []


async def test_percent_encoding_in_headers_is_decoded_once(stack: Stack) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": quote("ü 1%20"), "ce-source": "/tests", "ce-type": "t.decoded"}
    answer = await stack.http.post(EVENTS, headers=headers)
    assert answer.json()["items"][0]["eventId"] == "ü 1%20"


async def test_each_subscription_reacts_independently(stack: Stack) -> None:
    """One fails, one is slow, one works and publishes; a consumer reacts to what it published."""
    await subscribed(stack, "ind-fails", "t.independent", "hopeless")
    await subscribed(stack, "ind-slow", "t.independent", "witness", params={"seconds": 1.5})
    await subscribed(stack, "ind-works", "t.independent", "witness", publishes="t.derived")
    await subscribed(stack, "ind-consumer", "t.derived", "witness", params={"who": "consumer"})
    event_id = await published(
        stack.http, event("t.independent", {"id": "42"}, subject="s-1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    )
    found = await wait_until_settled(stack.http, event_id)
    reactions = by_subscription(found)
    assert {name: reaction["status"] for name, reaction in reactions.items()} == {
        "ind-fails": "failed",
        "ind-slow": "completed",
        "ind-works": "completed",
    }
    assert reactions["ind-fails"]["error"]["code"] == "AgentRejected"
    (derived,) = reactions["ind-works"]["published"]
    assert [one["subscription"] for one in derived["reactions"]] == ["ind-consumer"]
    cloud_event = (await tree(stack.http, derived["id"]))["event"]
    assert cloud_event["type"] == "t.derived"
    assert cloud_event["source"] == "/sevenfold/subscriptions/ind-works"
    assert cloud_event["subject"] == "s-1"
    assert cloud_event["correlationid"] == event_id
    assert cloud_event["causationid"] == found["event"]["id"]
    assert cloud_event["hops"] == 1
    assert cloud_event["traceparent"].split("-")[1] == "a" * 32
    assert cloud_event["traceparent"].split("-")[2] != "b" * 16
    assert cloud_event["data"]["seen"] == {"id": "42"}
    assert cloud_event["data"]["event"]["id"] == found["event"]["id"]
    run = await stack.run(reactions["ind-works"]["id"])
    assert run["pattern"] == "reaction"
    assert run["status"] == "completed"
    listed: set[str] = set()
    async with asyncio.timeout(20):  # visibility lags
        while listed != {"t.independent", "t.derived"}:
            items = (await stack.http.get(EVENTS, params={"correlation": event_id})).json()["items"]
            listed = {one["event"]["type"] for one in items}


async def test_agent_derives_many_events_or_none(stack: Stack) -> None:
    many = [{"type": "t.first", "data": {"n": 1}}, {"type": "t.second", "subject": "x"}]
    await subscribed(stack, "many", "t.many", "deriver", params={"events": many})
    await subscribed(stack, "none", "t.many", "deriver", params={"events": []}, publishes="t.never")
    await subscribed(stack, "bad", "t.many", "deriver", params={"events": [{"data": 1}]})
    await subscribed(
        stack, "when", "t.many", "witness", publishes="t.when", publishWhen={"data": {"seen.alert": True}}
    )
    quiet = by_subscription(
        await wait_until_settled(stack.http, await published(stack.http, event("t.many", {"alert": False})))
    )
    assert [one["type"] for one in quiet["many"]["published"]] == ["t.first", "t.second"]
    assert quiet["none"]["published"] == []
    assert quiet["bad"]["status"] == "failed"
    assert "events[0]" in quiet["bad"]["error"]["detail"]
    assert quiet["when"]["published"] == []
    loud = by_subscription(
        await wait_until_settled(stack.http, await published(stack.http, event("t.many", {"alert": True})))
    )
    assert [one["type"] for one in loud["when"]["published"]] == ["t.when"]


async def test_event_loops_stop(stack: Stack) -> None:
    """An event that triggers itself, two that trigger each other, and a loop that is allowed explicitly."""
    await subscribed(stack, "self", "t.self", publishes="t.self")
    found = await wait_until_settled(stack.http, await published(stack.http, event("t.self")))
    (once,) = by_subscription(found)["self"]["published"]
    assert once["reactions"] == []
    await subscribed(stack, "ping", "t.ping", publishes="t.pong")
    await subscribed(stack, "pong", "t.pong", publishes="t.ping")
    await subscribed(stack, "willing", "t.willing", publishes="t.willing", allowSelfTrigger=True)
    for event_type in ("t.ping", "t.willing"):
        event_id = await published(stack.http, event(event_type))
        node = await wait_until_settled(stack.http, event_id, seconds=60)
        hops = 0
        while node["reactions"]:
            (node,) = node["reactions"][0]["published"]
            hops += 1
        assert hops == 17
        assert node["status"] == "failed"
        letter = (await stack.http.get(f"{LETTERS}/{node['id']}")).json()
        assert letter["kind"] == "event"
        assert "17 hops away from its origin" in letter["reason"]


async def test_replayed_event_is_marked_and_derives_new_events(stack: Stack) -> None:
    await subscribed(stack, "replayed", "t.replay", publishes="t.replayed")
    first = await published(stack.http, event("t.replay", {"n": 1}))
    before = await wait_until_settled(stack.http, first)
    answer = await stack.http.post(f"{EVENTS}/{first}/replay", headers={"Idempotency-Key": "again"})
    assert answer.status_code == 202
    assert answer.json()["event"]["replayof"] == before["event"]["id"]
    same = await stack.http.post(f"{EVENTS}/{first}/replay", headers={"Idempotency-Key": "again"})
    assert same.json()["id"] == answer.json()["id"]
    assert same.headers["idempotency-replayed"] == "true"
    after = await wait_until_settled(stack.http, answer.json()["id"])
    old, new = (by_subscription(one)["replayed"]["published"][0] for one in (before, after))
    assert old["id"] != new["id"]
    derived = (await tree(stack.http, new["id"]))["event"]
    assert derived["replayof"] == before["event"]["id"]
    assert derived["correlationid"] == answer.json()["id"]


async def test_dead_letter_is_redriven(stack: Stack, tmp_path: Any) -> None:
    mended = tmp_path / "mended"
    await subscribed(stack, "choosy", "t.poison", "choosy", params={"mended": str(mended)}, publishes="t.fine")
    poison = await published(stack.http, event("t.poison", {"poison": True}))
    fine = await published(stack.http, event("t.poison", {"poison": False}))
    assert by_subscription(await wait_until_settled(stack.http, fine))["choosy"]["status"] == "completed"
    (dead,) = (await wait_until_settled(stack.http, poison))["reactions"]
    assert dead["status"] == "failed"
    letter = (await stack.http.get(f"{LETTERS}/{dead['id']}")).json()
    assert letter["kind"] == "reaction"
    assert "This event is poison." in letter["reason"]
    mended.touch()
    answer = await stack.http.post(f"{LETTERS}/{dead['id']}/redrive")
    assert answer.status_code == 202
    again = await wait_until_settled(stack.http, poison)
    assert by_subscription(again)["choosy"]["status"] == "completed"
    assert [one["type"] for one in by_subscription(again)["choosy"]["published"]] == ["t.fine"]
    assert (await stack.http.get(f"{LETTERS}/{dead['id']}")).status_code == 404
    everything = {"since": "2020-01-01T00:00:00Z"}
    assert (await stack.http.post(f"{LETTERS}/redrive", json=everything)).status_code == 202


async def test_reaction_result_is_delivered_to_a_webhook(stack: Stack) -> None:
    async with running_receiver() as receiver:
        webhook = {"webhookUrl": receiver.url("/reaction"), "webhookSecret": SECRET}
        await subscribed(stack, "delivered", "t.delivered", "witness", **webhook)
        shown = (await stack.http.get("/api/agent/subscriptions/delivered")).text
        assert SECRET not in shown
        found = await wait_until_settled(stack.http, await published(stack.http, event("t.delivered", {"n": 1})))
        (post,) = await receiver.received("/reaction")
        post.check()
        assert post.json["reactionId"] == found["reactions"][0]["id"]
        assert post.json["result"]["data"]["seen"] == {"n": 1}


async def test_event_stream_shows_events_and_reactions_live(stack: Stack) -> None:
    await subscribed(stack, "watched", "t.watched", "witness", publishes="t.seen")
    async with another_api(stack) as api:
        async with api.http.stream("GET", f"{EVENTS}/stream", params={"type": "t.watched"}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            ids = [await published(stack.http, event("t.watched", {"n": n})) for n in range(3)]
            seen = []
            async with asyncio.timeout(20):
                async for one in sse(answer):
                    seen.append(one)
                    if len(seen) == 6:
                        break
        # in order within one look at visibility, which may have shown a later one first
        accepted = sorted((one for one in seen if one.name == "event"), key=lambda one: one.data["data"]["n"])
        reacted = [one for one in seen if one.name == "reaction"]
        assert [one.data["data"]["n"] for one in accepted] == [0, 1, 2]
        assert {one.data["eventId"] for one in reacted} == set(ids)
        assert all(one.data["result"]["data"]["seen"] for one in reacted)
        headers = {"Last-Event-ID": str(accepted[0].id)}
        params = {"type": "t.watched", "kind": "event"}
        async with api.http.stream("GET", f"{EVENTS}/stream", params=params, headers=headers) as answer:
            resumed = []
            async with asyncio.timeout(20):
                async for one in sse(answer):
                    resumed.append(one.data["data"]["n"])
                    if len(resumed) == 2:
                        break
        assert resumed == [1, 2]
    bad = await stack.http.get(f"{EVENTS}/stream", headers={"Last-Event-ID": "nonsense"})
    assert bad.status_code == 422


async def test_reaction_can_be_streamed(stack: Stack) -> None:
    await subscribed(stack, "streams", "t.streams", "careful", params={"seconds": 1})
    event_id = await published(stack.http, event("t.streams"))
    async with asyncio.timeout(30):
        while not (reactions := (await tree(stack.http, event_id))["reactions"]):
            await asyncio.sleep(0.05)
    async with stack.http.stream("GET", f"/api/agent/runs/{reactions[0]['id']}/stream") as answer:
        text = "".join([one.data["chunk"] async for one in sse(answer) if one.is_chunk])
    assert text == "".join(f"{step} " for step in range(10))


async def test_eventbridge_envelope_is_accepted(stack: Stack) -> None:
    cloud_event = {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "t.bridge",
        "source": "com.example.shop",
        "account": "123456789012",
        "time": "2026-11-22T10:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:s3:::bucket"],
        "detail": {"id": "12345"},
        "something-new": True,
    }
    first, second = [await stack.http.post(f"{EVENTS}/eventbridge", json=cloud_event) for _ in range(2)]
    assert [one.json()["items"][0]["status"] for one in (first, second)] == ["accepted", "duplicate"]
    found = (await tree(stack.http, first.json()["items"][0]["id"]))["event"]
    assert found["type"] == "t.bridge"
    assert found["data"] == {"id": "12345"}
    assert found["awsregion"] == "eu-central-1"
    assert found["subject"] == "arn:aws:s3:::bucket"
    bad = await stack.http.post(f"{EVENTS}/eventbridge", json={**cloud_event, "source": ""})
    assert bad.status_code == 422


async def test_large_event_data_is_kept(stack: Stack) -> None:
    data = {"text": "ä" * 200_000}
    await subscribed(stack, "large", "t.large", "witness", params={"who": "large"})
    event_id = await published(stack.http, event("t.large", data))
    assert (await wait_until_settled(stack.http, event_id))["event"]["data"] == data
    assert next(seen for who, seen, _, _ in agents.SEEN if who == "large") == data
    async with asyncio.timeout(20):  # visibility lags
        while not (listed := (await stack.http.get(EVENTS, params={"type": "t.large"})).json()["items"]):
            await asyncio.sleep(0.1)
    assert "data" not in listed[0]["event"]


async def test_events_are_listed_by_type_source_and_time(stack: Stack) -> None:
    odd = "/tests/o'dd\"" + "x" * 300
    ids = [await published(stack.http, event("t.listed", {"n": n}, source=odd)) for n in range(5)]
    async with asyncio.timeout(30):
        while len((await stack.http.get(EVENTS, params={"source": odd})).json()["items"]) < 5:
            await asyncio.sleep(0.1)
    found: list[str] = []
    async with asyncio.timeout(20):  # those that close between two pages change their places
        while sorted(found) != sorted(ids):
            found, cursor = [], ""
            while cursor is not None:
                params = {"source": odd, "limit": "2", **({"cursor": cursor} if cursor else {})}
                page = (await stack.http.get(EVENTS, params=params)).json()
                found += [one["id"] for one in page["items"]]
                cursor = page["nextCursor"]
    assert (await stack.http.get(EVENTS, params={"type": "t.listed", "until": "2020-01-01T00:00:00Z"})).json()[
        "items"
    ] == []
    for path in ("evt_" + "a" * 26, "qry_" + "a" * 26, "nonsense"):
        assert (await stack.http.get(f"{EVENTS}/{path}")).status_code == 404
        assert (await stack.http.post(f"{EVENTS}/{path}/replay")).status_code == 404
