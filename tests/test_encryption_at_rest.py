"""Planted text in every field of every pattern is in no history, memo, database, payload file, Redis or log."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from temporalio.client import Client
from temporalio.worker import Worker

from sevenfold.runtime.temporal.connection import connect_temporal
from tests.support.child_workflows import Child
from tests.support.codec_keys import key_setting, new_key
from tests.support.events import EVENTS, SUBSCRIPTIONS, event
from tests.support.raw_store import clear_parts, files_with, raw_histories, spellings
from tests.support.receivers import SECRET, Receiver, running_receiver, simple
from tests.support.redis_server import RedisServer
from tests.support.stack import http_client, make_settings, sevenfold, until_ready

PLANTED = "Planted7Zq3Kv"
AGENTS = """
[agents.child]
kind = "workflow"
workflow = "Child"
task_queue = "children"
codec = true

[interactions]
enabled = true
"""
LARGE = f"{PLANTED} " * 30_000  # 400 kB: in a payload file
FIELDS: dict[str, Any] = {"params": {"p": PLANTED}, "metadata": {"m": PLANTED}}


async def plant_queries(http: httpx.AsyncClient) -> None:
    """Answers, failures of all kinds, and a large payload."""
    for fail in ("no", "refuse", "once", "crash"):
        for seconds in (0, 1):  # inline, and as an activity
            body = {"agent": "quoting", "query": PLANTED, "context": {"c": PLANTED}, "metadata": {"m": PLANTED}}
            answer = await http.post("/api/agent/query", json={**body, "params": {"fail": fail, "seconds": seconds}})
            assert PLANTED in answer.text
    body = {"agent": "echo", "query": PLANTED, "context": {"large": LARGE}}
    assert (await http.post("/api/agent/query", json=body)).json()["data"]["context"]["large"] == LARGE
    for do in ("echo", "fail for good"):
        body = {"agent": "child", "query": PLANTED, "params": {"do": do}, "timeout": 20}
        assert (await http.post("/api/agent/query", json=body)).status_code in (200, 502)


async def plant_work(http: httpx.AsyncClient) -> None:
    """Jobs, tasks, streams and hybrid runs, until all have ended."""
    say = {"say": PLANTED, "seconds": 1.5}
    items = {"task": "work", "agent": "item", "data": {"items": [PLANTED, "bad", LARGE], "more": PLANTED}, **FIELDS}
    job = (await http.post("/api/agent/jobs", json=items)).json()["jobId"]
    body = {"task": "work", "agent": "quoting", "params": {**say, "fail": "once"}, "metadata": {"m": PLANTED}}
    task = (await http.post("/api/agent/tasks", json=body)).json()["taskId"]
    run = {"agent": "quoting", "query": PLANTED, "context": {"c": PLANTED}, "params": say}
    hybrid = (await http.post("/api/agent/hybrid", json={**run, "durationEstimate": 60})).json()["hybridId"]
    streamed = await http.post("/api/agent/stream", json=run)
    assert PLANTED in streamed.text
    pieces = {"say": [PLANTED] * 60, "pause": 0.05}
    teller = await http.post("/api/agent/stream", json={"agent": "teller", "query": PLANTED, "params": pieces})
    assert teller.text.count(PLANTED) >= 60
    for run_id in (job, task, hybrid):
        await until_ended(http, run_id)
    assert PLANTED in (await http.get(f"/api/agent/jobs/{job}/results")).text


async def plant_webhooks(http: httpx.AsyncClient, receiver: Receiver) -> None:
    """An analysis whose receiver refuses at first, with planted text."""
    refusal = simple(500, body=PLANTED.encode())
    receiver.answers[:] = [refusal]
    body = {"document": f"A good {PLANTED} text.", "webhookUrl": receiver.url("/hook"), "webhookSecret": SECRET}
    answer = await http.post("/api/agent/analyze", json={**body, "agent": "quoting", "params": {"say": PLANTED}})
    assert answer.status_code == 202, answer.text
    assert PLANTED.encode() in (await receiver.received("/hook", 2))[1].body
    receiver.by_path["/stored"] = refusal
    endpoint = {"name": "planted", "url": receiver.url(f"/stored?key={PLANTED}"), "events": ["started", "completed"]}
    created = (await http.post("/api/agent/webhooks/endpoints", json=endpoint)).json()
    assert PLANTED in (await http.post(f"/api/agent/webhooks/endpoints/{created['id']}/test")).text
    body = {"agent": "quoting", "query": PLANTED, "webhookEndpoint": "planted"}
    assert (await http.post("/api/agent/query", json=body)).status_code == 200
    await receiver.received("/stored", 3)


async def plant_events(http: httpx.AsyncClient) -> None:
    """Subscriptions, events, derived events, a duplicate id with other data, and messages that are no events."""
    derived = [{"type": "p.derived", "data": {"d": PLANTED}, "subject": PLANTED}]
    subscription = {
        "filter": {"any": [{"exact": {"type": "p.created"}}, {"prefix": {"subject": PLANTED}}]},
        "agent": "deriver",
        "task": "work",
        "params": {"events": derived, "p": PLANTED},
        "publishes": "p.derived",
        "orderBy": "data.key",
    }
    answer = await http.put(f"{SUBSCRIPTIONS}/planted", json=subscription)
    assert answer.status_code == 201, answer.text
    await asyncio.sleep(0.6)
    created = event("p.created", {"key": PLANTED, "d": PLANTED}, subject=PLANTED, extension=PLANTED)
    assert (await http.post(EVENTS, json=created)).status_code == 202
    await http.post(EVENTS, json={**created, "data": {"other": PLANTED}})
    await http.post(EVENTS, json={"specversion": "1.0", "data": PLANTED, "what": PLANTED})
    await http.post(EVENTS, content=PLANTED, headers={"Content-Type": "application/cloudevents+json"})
    async with asyncio.timeout(20):
        while PLANTED not in (await http.get("/api/agent/events", params={"type": "p.derived"})).text:
            await asyncio.sleep(0.2)


async def until_ended(http: httpx.AsyncClient, run_id: str) -> None:
    async with asyncio.timeout(30):
        while (await http.get(f"/api/agent/runs/{run_id}")).json()["status"] in ("queued", "processing"):
            await asyncio.sleep(0.1)


async def clear_histories(client: Client) -> dict[str, list[str]]:
    """What is clear or planted in the histories, by workflow id."""
    found: dict[str, list[str]] = {}
    async for workflow_id, events, description in raw_histories(client):
        parts = [part for one in events for part in clear_parts(one, str(one.event_id))]
        raw = b"".join(one.SerializeToString() for one in events) + description
        parts += [f"planted: {one!r}" for one in spellings(PLANTED) if one in raw]
        found |= {workflow_id: parts} if parts else {}
    return found


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "clear"])
@pytest.mark.parametrize("streams", ["temporal", "redis"])
async def test_planted_text_is_stored_nowhere(
    tmp_path: Path, redis: RedisServer, receiver: Receiver, streams: str, encrypted: bool
) -> None:
    """Without keys the same search finds it everywhere, so the search works."""
    settings = make_settings(
        tmp_path,
        more_config=AGENTS,
        codec_keys=key_setting(new_key("one")) if encrypted else None,
        redis_url=redis.url if streams == "redis" else None,
        log_level="debug",
    )
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(connect_temporal(settings))
            http = await stack.enter_async_context(http_client(settings.port))
            await stack.enter_async_context(Worker(client, task_queue="children", workflows=[Child]))
            await asyncio.gather(
                plant_queries(http), plant_work(http), plant_webhooks(http, receiver), plant_events(http)
            )
            await asyncio.sleep(2)  # visibility lags
            histories = await clear_histories(client)
            in_redis = await redis_holds(redis.url, settings.task_queue) if streams == "redis" else False
        process.terminate()
    files = files_with(settings.data_dir, PLANTED)
    logged = any(one in process.log.read_bytes() for one in spellings(PLANTED))
    if encrypted:
        assert histories == {}
        assert files == []
        assert not in_redis
        assert not logged, [line for line in process.output().splitlines() if PLANTED in line][:3]
    else:
        assert len(histories) > 20
        assert any("payloads" in name for name in files)
        assert any("temporal.db" in name for name in files)
        assert in_redis == (streams == "redis")
        assert logged


async def redis_holds(url: str, _: str) -> bool:
    """Whether a stream in Redis holds the planted text."""
    async with Redis.from_url(url) as redis:
        streams = [await redis.xrange(key) async for key in redis.scan_iter("sevenfold:stream:*")]
        await redis.flushall()
    assert streams
    held = repr(streams).encode()
    return any(one in held for one in spellings(PLANTED)) or base64.b64encode(PLANTED.encode()) in held
