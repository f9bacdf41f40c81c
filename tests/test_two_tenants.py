"""Two tenants at one gateway: nothing of one is seen, changed or blocked by the other."""

import asyncio
import base64
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.receivers import SECRET, running_receiver
from tests.support.stack import Stack, running_stack
from tests.support.tenants import TenantKey, client_of, key_config

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
API = "/api/agent"
ACME, BETA, ADMIN = TenantKey("acme"), TenantKey("beta"), TenantKey("default", ("admin",))

# Stands in all content that beta sends; acme never sends it. Beta's subscriptions have the name, which acme tries.
MARK = "content-of-beta"
NAME = "planted"


@dataclass(frozen=True)
class Planted:
    """What beta has, by the name of the path's parameter."""

    ids: dict[str, list[str]]

    @property
    def every(self) -> set[str]:
        return {one for ids in self.ids.values() for one in ids}


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("two-tenants")
    config = key_config(ACME, BETA, ADMIN)
    config += (
        f'\n[[subscriptions]]\nname = "{NAME}-configured"\ntenant = "beta"\ntask = "query"\nagent = "echo"\n'
        f'filter = {{ exact = {{ type = "beta.configured" }} }}\n'
    )
    async with running_stack(directory, more_config=config, event_budget=20, webhook_schedule=(0,)) as stack:
        yield stack


@pytest.fixture(scope="module")
async def planted(shared: Stack) -> AsyncIterator[Planted]:
    async with client_of(shared, BETA) as beta, running_receiver() as receiver:
        yield Planted(await plant(beta, receiver.url("/refuse")))


async def plant(client: httpx.AsyncClient, webhook: str) -> dict[str, list[str]]:
    """Starts one run of each pattern, an event with a reaction, a subscription, a dead letter, deliveries, an
    endpoint.
    """

    async def post(path: str, **body: Any) -> Any:
        answer = await client.post(API + path, json=body)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json()

    subscription = {"name": f"{NAME}-s", "filter": {"exact": {"type": "beta.t"}}, "task": "query", "agent": "echo"}
    await post("/subscriptions", **subscription)
    query = (await post("/query", query=MARK, agent="echo"))["queryId"]
    job = (await post("/jobs", task="x", agent="echo", data={"items": [MARK, MARK]}))["jobId"]
    task = (await post("/tasks", task="x", agent="echo", params={"text": MARK}))["taskId"]
    hooked = {"webhookUrl": webhook, "webhookSecret": SECRET}
    hooked_run = (await post("/query", query=MARK, agent="echo", **hooked))["queryId"]
    endpoint = await post("/webhooks/endpoints", name=NAME, url=f"{webhook}/{MARK}", events=["started", "completed"])
    stored_run = (await post("/query", query=MARK, agent="echo", webhookEndpoint=NAME))["queryId"]
    async with client.stream("POST", f"{API}/stream", json={"query": MARK, "agent": "echo"}) as answer:
        stream = answer.headers["X-Stream-Id"]
    event = {"specversion": "1.0", "id": "1", "source": f"/{MARK}", "type": "beta.t", "data": {"text": MARK}}
    headers = {"Content-Type": "application/cloudevents+json"}
    accepted = await client.post(f"{API}/events", content=json.dumps(event), headers=headers)
    assert accepted.status_code == 202, accepted.text
    event_id = accepted.json()["items"][0]["id"]
    conflict = await client.post(f"{API}/events", content=json.dumps({**event, "data": MARK}), headers=headers)
    assert conflict.status_code == 409
    ids = {
        "run_id": [query, job, task, hooked_run, stream, stored_run],
        "endpoint_id": [endpoint["id"]],
        "job_id": [job],
        "task_id": [task],
        "stream_id": [stream],
        "event_id": [event_id],
        "name": [f"{NAME}-s", f"{NAME}-configured"],
    }
    async with asyncio.timeout(20):
        while not (letters := (await client.get(f"{API}/dead-letters")).json()["items"]):
            await asyncio.sleep(0.1)
        while not (deliveries := (await client.get(f"{API}/webhooks/deliveries")).json()["items"]):
            await asyncio.sleep(0.1)
        while not (reactions := (await client.get(f"{API}/events/{event_id}")).json()["reactions"]):
            await asyncio.sleep(0.1)
    ids["letter_id"] = [letter["id"] for letter in letters]
    ids["delivery_id"] = [delivery["id"] for delivery in deliveries]
    ids["run_id"] += [reaction["id"] for reaction in reactions]
    return ids


async def state_of(client: httpx.AsyncClient, planted: Planted) -> dict[str, Any]:
    """All that a tenant can read of its own, without what changes by itself."""
    paths = [f"{API}/runs/{run}" for run in planted.ids["run_id"]]
    paths += [f"{API}/{kind}" for kind in ("runs", "events", "subscriptions", "dead-letters")]
    paths += [f"{API}/webhooks/{kind}" for kind in ("deliveries", "endpoints")]
    return {path: (await client.get(path)).json() for path in paths}


# A refused body shows nothing of the object.
BODIES = {
    "token": {"scopes": ["read"]},
    "steps": {"name": "a", "key": "k", "result": 1},
    "responses": {"responses": {"approve": {"action": "decline"}}},
}


async def test_no_operation_opens_another_tenants_objects(shared: Stack, planted: Planted) -> None:
    """Every operation of the document, with every id of the other tenant that fits into it."""
    document = (await shared.http.get("/openapi.json", headers=ACME.headers)).json()
    async with client_of(shared, ACME) as acme, client_of(shared, BETA) as beta:
        before, tried = await state_of(beta, planted), 0
        for path, operations in document["paths"].items():
            names = re.findall(r"\{(\w+)\}", path)
            if len(names) != 1 or path.startswith("/api/agent/admin"):
                continue
            for identity in planted.ids[names[0]]:
                for method in operations.keys() & {"get", "post", "put", "delete", "patch"}:
                    if (method, names[0]) == ("put", "name"):
                        continue  # Creates a subscription of acme's own under this name; tried below.
                    body = BODIES.get(path.rpartition("/")[2], {})
                    url = re.sub(r"\{\w+\}", identity, path)
                    answer = await acme.request(method, url, json=body if method != "get" else None)
                    assert answer.status_code == 404, (method, url, answer.text)
                    assert MARK not in answer.text
                    tried += 1
        assert tried >= 35
        assert await state_of(beta, planted) == before


async def test_no_list_shows_another_tenants_objects(shared: Stack, planted: Planted) -> None:
    async with client_of(shared, ACME) as acme:
        for path in (
            f"{API}/runs",
            f"{API}/events",
            f"{API}/events?source=/{MARK}",
            f"{API}/subscriptions",
            f"{API}/dead-letters",
            f"{API}/webhooks/deliveries",
            f"{API}/webhooks/deliveries?run={planted.ids['run_id'][3]}",
            f"{API}/webhooks/deliveries?endpoint={planted.ids['endpoint_id'][0]}",
            f"{API}/webhooks/endpoints",
            f"{API}/stats",
            f"{API}/agents",
            "/asyncapi.json",
        ):
            answer = await acme.get(path)
            assert answer.status_code == 200
            assert MARK not in answer.text
            assert not any(identity in answer.text for identity in planted.every)
        stats = (await acme.get(f"{API}/stats")).json()
        assert stats["queues"] == []
        agents = (await acme.get(f"{API}/agents")).json()["items"]
        assert all(agent["recent"]["runs"] == 0 for agent in agents if agent["name"] == "teller")


async def test_the_same_names_keys_and_event_ids_do_not_meet(shared: Stack, planted: Planted) -> None:
    """What one tenant calls its own is free for the other."""
    async with client_of(shared, ACME) as acme, client_of(shared, BETA) as beta:
        key = {"Idempotency-Key": "the-same"}
        ours = await acme.post(f"{API}/query", json={"query": "a", "agent": "echo"}, headers=key)
        theirs = await beta.post(f"{API}/query", json={"query": "b", "agent": "echo"}, headers=key)
        assert (ours.status_code, theirs.status_code) == (200, 200)
        assert ours.json()["queryId"] != theirs.json()["queryId"]
        body = {"filter": {"exact": {"type": "acme.t"}}, "task": "query", "agent": "echo"}
        for name in planted.ids["name"]:
            assert (await acme.put(f"{API}/subscriptions/{name}", json=body)).status_code == 201
            assert (await acme.delete(f"{API}/subscriptions/{name}")).status_code == 204
            assert (await beta.get(f"{API}/subscriptions/{name}")).status_code == 200
        event = {"specversion": "1.0", "id": "1", "source": "/same", "type": "acme.t", "data": "acme's own"}
        headers = {"Content-Type": "application/cloudevents+json"}
        theirs = await beta.post(f"{API}/events", content=json.dumps({**event, "data": MARK}), headers=headers)
        assert theirs.status_code == 202
        accepted = await acme.post(f"{API}/events", content=json.dumps(event), headers=headers)
        assert accepted.status_code == 202
        assert accepted.json()["items"][0]["id"] != theirs.json()["items"][0]["id"]


async def test_a_run_cannot_name_another_tenants_endpoint(shared: Stack, planted: Planted) -> None:
    """A name is the tenant's own, also of the default endpoint."""
    async with client_of(shared, ACME) as acme, client_of(shared, BETA) as beta, running_receiver() as receiver:
        path = f"{API}/webhooks/endpoints"
        (identity,) = planted.ids["endpoint_id"]
        await beta.patch(f"{path}/{identity}", json={"isDefault": True})
        run = {"query": "acme's own", "agent": "echo"}
        answer = await acme.post(f"{API}/query", json={**run, "webhookEndpoint": NAME})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/webhookEndpoint")
        run_id = (await acme.post(f"{API}/query", json=run)).json()["queryId"]
        assert (await acme.get(f"{API}/runs/{run_id}")).json()["webhook"] is None
        own = (await acme.post(path, json={"name": NAME, "url": receiver.url("/own")})).json()
        assert (await acme.post(f"{API}/query", json={**run, "webhookEndpoint": NAME})).status_code == 200
        (post,) = await receiver.received("/own")
        post.check(own["secret"])
        assert (await acme.delete(f"{path}/{own['id']}")).status_code == 204
        assert (await beta.patch(f"{path}/{identity}", json={"isDefault": False})).status_code == 200


async def test_a_tenants_event_triggers_its_own_subscriptions_only(shared: Stack, planted: Planted) -> None:
    headers = {"Content-Type": "application/cloudevents+json"}
    async with client_of(shared, ACME) as acme:
        for number, event_type in enumerate(("beta.t", "beta.configured")):
            event = {"specversion": "1.0", "id": f"own-{number}", "source": "/acme", "type": event_type}
            accepted = await acme.post(f"{API}/events", content=json.dumps(event), headers=headers)
            path = f"{API}/events/{accepted.json()['items'][0]['id']}"
            async with asyncio.timeout(20):
                while (detail := (await acme.get(path)).json())["status"] == "processing":
                    await asyncio.sleep(0.1)
            assert detail["reactions"] == []


async def test_the_live_stream_of_events_is_the_tenants_own(shared: Stack, planted: Planted) -> None:
    headers = {"Content-Type": "application/cloudevents+json"}
    async with (
        client_of(shared, ACME) as acme,
        client_of(shared, BETA) as beta,
        acme.stream("GET", f"{API}/events/stream") as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        for client, name in ((beta, MARK), (acme, "acme-own")):
            event = {"specversion": "1.0", "id": "live", "source": f"/{name}", "type": f"{name}.live"}
            await client.post(f"{API}/events", content=json.dumps(event), headers=headers)
        seen = ""
        async with asyncio.timeout(20):
            while "acme-own.live" not in seen:
                seen += await anext(lines)
        assert MARK not in seen


@pytest.mark.slow
async def test_schemathesis_with_one_tenants_key_sees_nothing_of_the_other(
    shared: Stack, planted: Planted, tmp_path: Path
) -> None:
    """All operations, all checks of errors: no 5xx, and nothing of the other tenant in any response."""
    ids = "".join(
        f'[[operations]]\ninclude-path-regex = "[{{]{name}[}}]"\nparameters = {{ {name} = "{values[0]}" }}\n'
        for name, values in planted.ids.items()
    )
    (tmp_path / "schemathesis.toml").write_text(
        f'headers = {{ Prefer = "wait=2", Authorization = "Bearer {ACME.text}" }}\nrequest-timeout = 30\n'
        f'[[operations]]\ninclude-path = "{API}/events/stream"\nenabled = false\n{ids}',
        encoding="utf-8",
    )
    command = [str(SCHEMATHESIS), "--config-file", str(tmp_path / "schemathesis.toml"), "run"]
    command += [f"http://127.0.0.1:{shared.settings.port}/openapi.json", "--max-examples", "5", "--workers", "1"]
    command += [
        "--phases",
        "examples,fuzzing",
        "--checks",
        "not_a_server_error",
        "--no-color",
        "--seed",
        "3",
    ]
    command += ["--report", "ndjson", "--report-dir", str(tmp_path / "report"), "--seed", "3"]
    async with client_of(shared, BETA) as beta:
        before = await state_of(beta, planted)
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-6_000:]
        assert await state_of(beta, planted) == before
    (report,) = (tmp_path / "report").iterdir()
    text = report.read_text(encoding="utf-8")
    assert all(values[0] in text for values in planted.ids.values()), "beta's ids were tried"
    bodies = _response_bodies(text)
    assert len(bodies) > 200
    assert any(b"nextCursor" in body for body in bodies), "the bodies are readable"
    assert not any(MARK.encode() in body for body in bodies)


def _response_bodies(report: str) -> list[bytes]:
    """The bodies of all responses in a report."""
    found: list[bytes] = []

    def search(node: Any) -> None:
        if isinstance(node, dict):
            content = (node["response"].get("content") or {}) if isinstance(node.get("response"), dict) else {}
            found.append(base64.b64decode(content.get("$base64", "")))
            for value in node.values():
                search(value)
        elif isinstance(node, list):
            for value in node:
                search(value)

    for line in report.splitlines():
        search(json.loads(line))
    return [body for body in found if body]
