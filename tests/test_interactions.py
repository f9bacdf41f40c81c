"""The interaction event of every pattern, and the article's customer support of examples/support."""

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx

from tests.support.events import EVENTS, event, published, subscribed
from tests.support.receivers import running_receiver
from tests.support.stack import ROOT, Stack, http_client, make_settings, running_stack, sevenfold, until_ready

EXAMPLE = ROOT / "examples" / "support"
ON = "[interactions]\nenabled = true\n"


async def read_interactions(http: httpx.AsyncClient, count: int) -> dict[str, dict[str, Any]]:
    """The interactions by their runs, once there are so many."""
    async with asyncio.timeout(30):
        while True:
            page = await http.get(EVENTS, params={"source": "/sevenfold/runs", "limit": 100})
            items = page.json()["items"]
            if len(items) >= count:
                return {one["event"]["id"]: one["event"] for one in items}
            await asyncio.sleep(0.2)


async def test_every_pattern_publishes_its_interaction_event(tmp_path: Path) -> None:
    async with running_stack(tmp_path, more_config=ON) as stack:
        await subscribed(stack, "reacts", "t.reacts")
        ids = await ran(stack)
        found = await read_interactions(stack.http, len(ids))
        assert set(found) == set(ids)
        for run_id, (pattern, status) in ids.items():
            interaction = found[run_id]
            assert interaction["type"] == f"interaction.{status}"
            assert interaction["subject"] == interaction["data"]["pattern"] == pattern
            assert interaction["data"]["status"] == status
            assert "response" not in json.dumps(interaction)
        failed = next(one for one in found.values() if one["type"] == "interaction.failed")
        assert failed["data"]["code"] == "AgentRejected"
        # a reaction to an interaction is none itself
        await subscribed(stack, "analytics", "interaction.completed")
        run_id = (await stack.query(agent="echo", metadata={"channel": "chat"})).json()["queryId"]
        found = await read_interactions(stack.http, len(ids) + 1)
        assert found[run_id]["data"]["metadata"] == {"channel": "chat"}
        await asyncio.sleep(2)
        assert len(await read_interactions(stack.http, len(ids) + 1)) == len(ids) + 1


async def ran(stack: Stack) -> dict[str, tuple[str, str]]:
    """A run of each pattern, and one that fails, and one that is cancelled."""

    async def post(path: str, **body: object) -> dict[str, Any]:
        return dict((await stack.http.post(f"/api/agent/{path}", json=body)).json())

    async with running_receiver() as receiver:
        webhook = {"webhookUrl": receiver.url(), "webhookSecret": "s"}
        job = (await post("jobs", task="work", agent="item", data={"items": ["a", "b"]}))["jobId"]
        task = (await post("tasks", task="work", agent="echo"))["taskId"]
        analysis = (await post("analyze", document="A text.", **webhook))["taskId"]
        stream = (await stack.http.post("/api/agent/stream", json={"query": "hi", "agent": "echo"})).headers
        hybrid = (await post("hybrid", query="hi", agent="echo"))["hybridId"]
        query = (await stack.query(agent="echo")).json()["queryId"]
        failed = (await stack.query(agent="hopeless")).json()["runId"]
        stopped = (await post("tasks", task="work", agent="careful", params={"seconds": 60}))["taskId"]
        event_id = await published(stack.http, event("t.reacts"))
        async with asyncio.timeout(20):
            while not (tree := (await stack.http.get(f"{EVENTS}/{event_id}")).json())["reactions"]:
                await asyncio.sleep(0.1)
        await stack.http.post(f"/api/agent/runs/{stopped}/cancel")
        await receiver.received("/")
    return {
        query: ("synchronous", "completed"),
        job: ("queue", "completed"),
        tree["reactions"][0]["id"]: ("reaction", "completed"),
        analysis: ("webhook", "completed"),
        task: ("polling", "completed"),
        stream["X-Stream-Id"]: ("streaming", "completed"),
        hybrid: ("hybrid", "completed"),
        failed: ("synchronous", "failed"),
        stopped: ("polling", "cancelled"),
    }


async def test_interaction_events_are_off_by_default(stack: Stack) -> None:
    await stack.query(agent="echo")
    await asyncio.sleep(1)
    assert (await stack.http.get(EVENTS, params={"source": "/sevenfold/runs"})).json()["items"] == []


async def test_customer_support_example(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    bodies = [json.loads(body) for body in re.findall(r"-d '(\{.*?\})'", (EXAMPLE / "README.md").read_text())]
    async with running_receiver() as receiver:
        with sevenfold("dev", settings) as dev:
            await until_ready(settings.port, process=dev)
            async with http_client(settings.port) as http:
                faq, issue, callback = [
                    await http.post(
                        "/api/agent/hybrid",
                        json={**body, **({"webhookUrl": receiver.url()} if "webhookUrl" in body else {})},
                    )
                    for body in bodies
                ]
                assert faq.status_code == 200
                assert "Europe" in faq.json()["response"]
                assert issue.status_code == callback.status_code == 202
                (post,) = await receiver.received("/")
                assert post.json["hybridId"] == callback.json()["hybridId"]
                post.check("whsec_abc123")
                answer = (await http.get(issue.json()["links"]["self"])).json()
                assert "unlocked" in answer["result"]["response"]
                await read_interactions(http, 3)
                async with asyncio.timeout(20):
                    path = tmp_path / "interactions.jsonl"
                    while not path.exists() or len(path.read_text().splitlines()) < 3:
                        await asyncio.sleep(0.1)
    counted = [json.loads(line) for line in path.read_text().splitlines()]
    assert {one["pattern"] for one in counted} == {"hybrid"}
    assert {one["status"] for one in counted} == {"completed"}
