"""Quotas of tenants and keys: open runs, streams, queued items, subscriptions, events and stored bytes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from sevenfold.adapters.payloads.directory import THRESHOLD_BYTES
from tests.support.events import EVENTS, SUBSCRIPTIONS, event
from tests.support.processes import until
from tests.support.stack import Stack, another_api, running_stack
from tests.support.tenants import TenantKey, client_of, key_config

API = "/api/agent"
ADMIN = TenantKey("default", ("admin",))
RUNS, ITEMS, STREAMS, STORED, EVENTFUL, SUBSCRIBED, FREE = (
    TenantKey(name) for name in ("runs", "items", "streams", "stored", "eventful", "subscribed", "free")
)
FEW, OTHER = (
    TenantKey("free", more="open_runs = 2\nstreams = 1\nqueued_items = 5\nsubscriptions = 1"),
    TenantKey("free"),
)
SMALL = TenantKey("free", more=f"stored_bytes = {2 * THRESHOLD_BYTES}")
QUOTAS = f"""
[agents.priced]
kind = "builtin"
price = {{input = 1}}
[tenants.runs]
open_runs = 3
[tenants.items]
queued_items = 10
[tenants.streams]
streams = 2
[tenants.stored]
stored_bytes = {2 * THRESHOLD_BYTES}
[tenants.eventful]
events = "10/s"
[tenants.subscribed]
subscriptions = 2
"""


@pytest.fixture(scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    config = QUOTAS + key_config(ADMIN, RUNS, ITEMS, STREAMS, STORED, EVENTFUL, SUBSCRIBED, FREE, FEW, OTHER, SMALL)
    async with running_stack(tmp_path_factory.mktemp("quotas"), more_config=config) as stack:
        yield stack


async def start(client: httpx.AsyncClient, seconds: float = 30, **body: object) -> httpx.Response:
    """Starts a task that takes so long."""
    task = {"task": "work", "agent": "simulator", "params": {"seconds": seconds}, **body}
    return await client.post(f"{API}/tasks", json=task)


async def cancel_all(client: httpx.AsyncClient) -> None:
    """Cancels the client's open runs, and waits until visibility has none."""
    listed = (await client.get(f"{API}/runs", params={"limit": 100, "status": "processing"})).json()["items"]
    for run in listed:
        await client.post(f"{API}/runs/{run['id']}/cancel")

    async def none_is_open() -> bool:
        answer = await client.get(f"{API}/runs", params={"status": "processing"})
        return not answer.json()["items"]

    await until(none_is_open, 20)


def assert_exceeded(answer: httpx.Response, policy: str) -> None:
    """The answer is a 429 of this quota, with all that it promises."""
    assert answer.status_code == 429, answer.text
    problem = answer.json()
    assert problem["type"] == "/problems/quota-exceeded"
    assert problem["violated-policies"] == [policy]
    assert answer.headers["RateLimit-Policy"].startswith(f'"{policy}";q=')
    assert answer.headers["RateLimit"].startswith(f'"{policy}";r=')
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_tenant_has_no_more_open_runs_than_its_quota(limited: Stack) -> None:
    async with client_of(limited, RUNS) as client, client_of(limited, FREE) as neighbour:
        answers = await asyncio.gather(*(start(client) for _ in range(8)))
        assert Counter(answer.status_code for answer in answers) == {202: 3, 429: 5}
        assert_exceeded(next(answer for answer in answers if answer.status_code == 429), "tenant-open-runs")
        for path, body in (
            ("query", {"query": "hi"}),
            ("jobs", {"task": "work"}),
            ("hybrid", {"query": "hi"}),
            ("stream", {"query": "hi"}),
            ("analyze", {"document": "A text.", "webhookUrl": "http://127.0.0.1:9/", "webhookSecret": "s"}),
        ):
            assert_exceeded(await client.post(f"{API}/{path}", json=body), "tenant-open-runs")
        assert (await start(neighbour, 0)).status_code == 202
        run = answers[[answer.status_code for answer in answers].index(202)].json()["taskId"]
        await client.post(f"{API}/runs/{run}/cancel")

        async def is_free() -> bool:
            return (await start(client)).status_code == 202

        await until(is_free, 10)
        await cancel_all(client)


async def test_two_processes_together_hold_the_open_runs(limited: Stack) -> None:
    async with another_api(limited) as other, client_of(limited, RUNS) as first, client_of(other, RUNS) as second:
        accepted = 0
        for _ in range(5):
            for client in (first, second):
                accepted += (await start(client)).status_code == 202
                await asyncio.sleep(0.3)  # What others start within a moment is not known.
        assert accepted == 3
        await cancel_all(first)


async def test_short_runs_do_not_count_when_they_have_ended(limited: Stack) -> None:
    async with client_of(limited, RUNS) as client:
        answers = [await client.post(f"{API}/query", json={"query": "hi", "agent": "echo"}) for _ in range(40)]
        assert {answer.status_code for answer in answers} == {200}


async def test_a_repeated_start_is_found_and_not_refused(limited: Stack) -> None:
    async with client_of(limited, RUNS) as client:
        first = await client.post(
            f"{API}/tasks",
            json={"task": "work", "agent": "simulator", "params": {"seconds": 30}},
            headers={"Idempotency-Key": "once"},
        )
        while (await start(client)).status_code == 202:
            pass
        again = await client.post(
            f"{API}/tasks",
            json={"task": "work", "agent": "simulator", "params": {"seconds": 30}},
            headers={"Idempotency-Key": "once"},
        )
        assert again.status_code == 202
        assert again.json()["taskId"] == first.json()["taskId"]
        await cancel_all(client)


async def test_a_key_has_quotas_of_its_own(limited: Stack) -> None:
    async with client_of(limited, FEW) as few, client_of(limited, OTHER) as other:
        codes = [(await start(few)).status_code for _ in range(3)]
        assert codes == [202, 202, 429]
        assert_exceeded(await start(few), "key-open-runs")
        assert (await start(other, 0)).status_code == 202
        job = {"task": "work", "agent": "simulator", "data": {"items": list(range(4))}, "params": {"seconds": 30}}
        assert_exceeded(await few.post(f"{API}/jobs", json=job), "key-open-runs")
        await cancel_all(few)
        assert (await few.post(f"{API}/jobs", json=job)).status_code == 202
        assert_exceeded(await few.post(f"{API}/jobs", json=job), "key-queued-items")
        await cancel_all(few)


async def test_a_run_token_counts_for_the_key_that_issued_it(limited: Stack) -> None:
    async with client_of(limited, FEW) as few, client_of(limited) as browser:
        tokens = [(await few.post(f"{API}/tokens", json={"agent": "simulator"})).json()["token"] for _ in range(2)]
        body = {"query": "hi", "params": {"seconds": 20}}
        streams = [
            asyncio.create_task(browser.post(f"{API}/stream", params={"token": token}, json=body)) for token in tokens
        ]
        done, _ = await asyncio.wait(streams, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert_exceeded(done.pop().result(), "key-streams")
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        await cancel_all(few)


async def test_streams_are_counted(limited: Stack) -> None:
    async with client_of(limited, STREAMS) as client:
        body = {"query": "hi", "agent": "simulator", "params": {"seconds": 20}}
        streams = [asyncio.create_task(client.post(f"{API}/stream", json=body)) for _ in range(3)]
        done, open_streams = await asyncio.wait(streams, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert_exceeded(done.pop().result(), "tenant-streams")
        assert len(open_streams) == 2
        assert (await start(client, 0)).status_code == 202
        for stream in open_streams:
            stream.cancel()
        await asyncio.gather(*open_streams, return_exceptions=True)
        await cancel_all(client)


async def test_items_of_open_jobs_are_counted_until_they_have_results(limited: Stack) -> None:
    async with client_of(limited, ITEMS) as client:

        async def queue(items: int, seconds: float) -> httpx.Response:
            body = {
                "task": "work",
                "agent": "simulator",
                "params": {"seconds": seconds},
                "data": {"items": list(range(items))},
            }
            return await client.post(f"{API}/jobs", json=body)

        too_large = await queue(11, 0)
        assert too_large.status_code == 422
        assert "this job alone has 11" in too_large.json()["detail"]
        assert (await queue(8, 30)).status_code == 202
        refused = await queue(3, 0)
        assert "has 2 places left, and this job takes 3" in refused.json()["detail"]
        assert refused.headers["RateLimit"] == '"tenant-queued-items";r=2;t=1'
        assert (await queue(2, 30)).status_code == 202
        assert_exceeded(await queue(1, 0), "tenant-queued-items")
        await cancel_all(client)
        assert (await queue(10, 0)).status_code == 202


async def test_subscriptions_are_counted(limited: Stack) -> None:
    body = {"filter": {"exact": {"type": "t"}}, "agent": "echo", "task": "work"}
    async with client_of(limited, SUBSCRIBED) as client:
        codes = [(await client.put(f"{API}/subscriptions/s{n}", json=body)).status_code for n in range(2)]
        assert codes == [201, 201]
        assert_exceeded(await client.put(f"{API}/subscriptions/s2", json=body), "tenant-subscriptions")
        assert_exceeded(
            await client.post(f"{API}/subscriptions", json={"name": "s3", **body}), "tenant-subscriptions"
        )
        assert (await client.put(f"{API}/subscriptions/s1", json=body)).status_code == 200
        await client.delete(f"{API}/subscriptions/s0")
        assert (await client.put(f"{API}/subscriptions/s2", json=body)).status_code == 201


async def test_subscriptions_of_a_key_are_counted(limited: Stack) -> None:
    body = {"filter": {"exact": {"type": "t"}}, "agent": "echo", "task": "work"}
    async with client_of(limited, FEW) as few, client_of(limited, OTHER) as other:
        assert (await few.put(f"{SUBSCRIPTIONS}/mine", json=body)).status_code == 201
        assert (await few.put(f"{SUBSCRIPTIONS}/mine", json=body)).status_code == 200
        assert_exceeded(await few.put(f"{SUBSCRIPTIONS}/second", json=body), "key-subscriptions")
        assert (await other.put(f"{SUBSCRIPTIONS}/theirs", json=body)).status_code == 201
        # To take over another key's takes a place too.
        assert_exceeded(await few.put(f"{SUBSCRIPTIONS}/theirs", json=body), "key-subscriptions")
        await few.delete(f"{SUBSCRIPTIONS}/mine")
        assert (await few.put(f"{SUBSCRIPTIONS}/theirs", json=body)).status_code == 200
        assert "keyId" not in (await few.get(f"{SUBSCRIPTIONS}/theirs")).json()
        await few.delete(f"{SUBSCRIPTIONS}/theirs")


async def test_events_and_their_reactions_count_against_the_rate(limited: Stack) -> None:
    async with client_of(limited, EVENTFUL) as client:
        for number in range(4):
            body = {"name": f"s{number}", "filter": {"exact": {"type": "t.costly"}}, "agent": "echo", "task": "work"}
            assert (await client.post(SUBSCRIPTIONS, json=body)).status_code == 201
        await asyncio.sleep(2)  # The subscriptions are known, and the lease of the rate is full.
        # 40 events with 4 reactions each: 200 at 10 a second.
        batch = [event("t.costly") for _ in range(40)]
        accepted = await client.post(
            EVENTS, json=batch, headers={"Content-Type": "application/cloudevents-batch+json"}
        )
        assert accepted.status_code == 202, accepted.text
        refused = await client.post(EVENTS, json=event("t.costly"))
        assert_exceeded(refused, "tenant-events")
        assert 10 <= int(refused.headers["Retry-After"]) <= 30


async def test_stored_bytes_are_bounded(limited: Stack) -> None:
    async with client_of(limited, STORED) as client:
        large = {"query": "x" * (3 * THRESHOLD_BYTES), "agent": "echo"}
        assert (await client.post(f"{API}/query", json=large)).status_code == 200

        async def is_measured() -> bool:
            return (await start(client, 0)).status_code == 429

        await until(is_measured, 40)
        assert_exceeded(await start(client, 0), "tenant-stored-bytes")


async def test_stored_bytes_of_a_key_are_bounded(limited: Stack) -> None:
    """Those of its runs, and not those of its tenant's other keys."""
    async with client_of(limited, SMALL) as small, client_of(limited, OTHER) as other:
        for client, letter in ((other, "o"), (small, "s")):
            large = {"query": letter * (3 * THRESHOLD_BYTES), "agent": "echo"}
            assert (await client.post(f"{API}/query", json=large)).status_code == 200

        async def is_measured() -> bool:
            return (await start(small, 0)).status_code == 429

        await until(is_measured, 40)
        assert_exceeded(await start(small, 0), "key-stored-bytes")
        assert (await start(other, 0)).status_code == 202
        # What the worker stored for the run is in the key's folder too: its input, its call and its result.
        folder = limited.settings.data_dir / "payloads/tenants/free/keys" / SMALL.new.key_id
        assert len(list(folder.glob("??/*"))) >= 3


async def test_quotas_of_created_tenants_are_shown_and_act(limited: Stack) -> None:
    async with client_of(limited, ADMIN) as admin:
        made = await admin.post(
            f"{API}/admin/tenants",
            json={
                "name": "made",
                "openRuns": 1,
                "queuedItems": 7,
                "events": "600/m",
                "storedBytes": 10_000_000,
                "budget": {"tokens": 5, "usd": 0.5},
            },
        )
        assert made.status_code == 201, made.text
        shown = (await admin.get(f"{API}/admin/tenants/made")).json()
        assert {name: shown[name] for name in ("openRuns", "queuedItems", "events", "storedBytes", "streams")} == {
            "openRuns": 1,
            "queuedItems": 7,
            "events": "10/s",
            "storedBytes": 10_000_000,
            "streams": None,
        }
        assert shown["budget"] == {"tokens": 5, "usd": 0.5}
        key = await admin.post(
            f"{API}/admin/tenants/made/keys", json={"scopes": ["runs:write"], "openRuns": 0, "budget": {"tokens": 1}}
        )
        assert key.json()["openRuns"] == 0
        async with client_of(limited) as client:
            client.headers["X-API-Key"] = key.json()["key"]
            assert_exceeded(await start(client), "key-open-runs")
        await admin.delete(f"{API}/admin/tenants/made")


async def test_patch_changes_what_it_names(limited: Stack) -> None:
    async with client_of(limited, ADMIN) as admin:
        tenant = f"{API}/admin/tenants/patched"
        body = {"name": "patched", "rate": "5/s", "openRuns": 7, "weight": 2, "budget": {"tokens": 5}}
        await admin.post(f"{API}/admin/tenants", json=body)
        changed = (await admin.patch(tenant, json={"budget": {"usd": 9}, "openRuns": None})).json()
        kept = {name: changed[name] for name in ("rate", "weight", "openRuns", "budget")}
        assert kept == {"rate": "5/s", "weight": 2, "openRuns": None, "budget": {"tokens": None, "usd": 9}}
        body = {"scopes": ["runs:write"], "openRuns": 3, "streams": 4}
        key = (await admin.post(f"{tenant}/keys", json=body)).json()
        limited_key = (await admin.patch(f"{tenant}/keys/{key['id']}", json={"openRuns": 0})).json()
        assert (limited_key["openRuns"], limited_key["streams"]) == (0, 4)
        async with client_of(limited) as client:
            client.headers["X-API-Key"] = key["key"]
            assert_exceeded(await start(client), "key-open-runs")
        for path, body, status in (
            (f"{tenant}/keys/{key['id']}", {"scopes": ["admin"]}, 422),
            (f"{tenant}/keys/000000000000", {"openRuns": 1}, 404),
            (f"{API}/admin/tenants/runs", {"openRuns": 1}, 409),
            (f"{API}/admin/tenants/runs/keys/{RUNS.new.key_id}", {"openRuns": 1}, 409),
            (f"{API}/admin/tenants/nobody", {"openRuns": 1}, 404),
        ):
            assert (await admin.patch(path, json=body)).status_code == status, path
        administrator = (await admin.post(f"{tenant}/keys", json={"scopes": ["admin"]})).json()["id"]
        refused = await admin.patch(f"{tenant}/keys/{administrator}", json={"budget": {"tokens": 1}})
        assert refused.status_code == 422
        await admin.delete(tenant)


@pytest.mark.parametrize(
    ("field", "value", "pointer"),
    [
        ("openRuns", -1, "/openRuns"),
        ("openRuns", "3", "/openRuns"),
        ("streams", 1.5, "/streams"),
        ("events", "10", "/events"),
        ("storedBytes", True, "/storedBytes"),
        ("budget", {"tokens": -1}, "/budget/tokens"),
        ("budget", {"usd": "1"}, "/budget/usd"),
        ("budget", {"euro": 1}, "/budget/euro"),
        ("budget", [], "/budget"),
        ("queuedItems", 10**30, "/queuedItems"),
    ],
)
async def test_malformed_quotas_are_refused(limited: Stack, field: str, value: object, pointer: str) -> None:
    async with client_of(limited, ADMIN) as admin:
        answer = await admin.post(f"{API}/admin/tenants", json={"name": "odd", field: value})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == pointer
