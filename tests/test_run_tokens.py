"""Run tokens: what a browser may do with one run, and when that ends."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.stack import Stack, running_stack
from tests.support.tenants import TenantKey, client_of, key_config

ADMIN = TenantKey("default", ("admin",))
ACME = TenantKey("acme")
READER = TenantKey("acme", ("runs:read",))
API = "/api/agent"
SLOW = {"query": "hi", "agent": "teller", "params": {"say": ["word "] * 200, "pause": 0.1}}


@pytest.fixture(scope="module")
async def keyed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    config = key_config(ADMIN, ACME, READER)
    async with running_stack(tmp_path_factory.mktemp("tokens"), more_config=config) as stack:
        yield stack


@pytest.fixture
async def acme(keyed: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(keyed, ACME) as client:
        yield client


async def slow_stream(client: httpx.AsyncClient, **more: object) -> str:
    """Starts a stream of 20 s and leaves it."""
    async with client.stream("POST", f"{API}/stream", json={**SLOW, **more}) as answer:
        assert answer.status_code == 200, await answer.aread()
        return answer.headers["X-Stream-Id"]


async def issue(client: httpx.AsyncClient, run: str, **body: object) -> str:
    answer = await client.post(f"{API}/runs/{run}/token", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.json()["token"])


async def test_a_token_opens_status_stream_and_cancellation_of_its_run(keyed: Stack, acme: httpx.AsyncClient) -> None:
    run = await slow_stream(acme)
    token = await issue(acme, run, scopes=["read", "stream", "cancel"])
    assert (await keyed.http.get(f"{API}/runs/{run}?token={token}")).json()["id"] == run
    for path in (f"/stream/{run}", f"/runs/{run}/stream"):
        async with keyed.http.stream("GET", f"{API}{path}?token={token}&after=0") as answer:
            assert answer.status_code == 200
    answer = await keyed.http.post(f"{API}/runs/{run}/cancel?token={token}")
    assert answer.status_code == 202
    await keyed_status(acme, run, "cancelled")


async def keyed_status(client: httpx.AsyncClient, run: str, status: str) -> None:
    async with asyncio.timeout(20):
        while (await client.get(f"{API}/runs/{run}")).json()["status"] != status:
            await asyncio.sleep(0.1)


async def test_a_token_opens_nothing_else(keyed: Stack, acme: httpx.AsyncClient) -> None:
    run = (await acme.post(f"{API}/query", json={"query": "hi", "agent": "echo"})).json()["queryId"]
    other = (await acme.post(f"{API}/query", json={"query": "hi", "agent": "echo"})).json()["queryId"]
    token = await issue(acme, run, scopes=["read"])
    for method, path in (
        ("GET", f"/runs/{other}"),
        ("GET", "/runs"),
        ("GET", f"/runs/{run}/stream"),
        ("GET", f"/stream/{run}"),
        ("POST", f"/runs/{run}/cancel"),
        ("POST", f"/runs/{run}/token"),
        ("POST", "/query"),
        ("POST", "/stream"),
        ("POST", "/tokens"),
        ("GET", "/admin/tenants"),
        ("GET", "/agents"),
        ("DELETE", f"/runs/{run}"),
    ):
        answer = await keyed.http.request(method, f"{API}{path}?token={token}")
        assert answer.status_code == 403, (method, path, answer.text)
        assert token not in answer.text
    for path in ("/docs", "/openapi.json", "/asyncapi.json", "/"):
        assert (await keyed.http.get(f"{path}?token={token}")).status_code == 403


async def test_forged_changed_and_expired_tokens_are_refused(keyed: Stack, acme: httpx.AsyncClient) -> None:
    run = (await acme.post(f"{API}/query", json={"query": "hi", "agent": "echo"})).json()["queryId"]
    short, token = await issue(acme, run, seconds=1), await issue(acme, run)
    raw = base64.urlsafe_b64decode(token.removeprefix("sfr_") + "=" * (-len(token.removeprefix("sfr_")) % 4))
    body = json.loads(raw[16:])
    widened = raw[:16] + json.dumps({**body, "scopes": ["cancel", "read", "stream"]}).encode()
    wrong = {
        "changed": "sfr_" + base64.urlsafe_b64encode(widened).decode().rstrip("="),
        "truncated": token[:-4],
        "prefix": token.removeprefix("sfr_"),
        "key": ACME.text,
        "empty": "",
        "twice": f"{token}&token={token}",
        "odd": "sfr_%ff%fe",
        "long": "sfr_" + "a" * 5_000,
    }
    for name, text in wrong.items():
        assert (await keyed.http.get(f"{API}/runs/{run}?token={text}")).status_code == 401, name
    await asyncio.sleep(1.2)
    answer = await keyed.http.get(f"{API}/runs/{run}?token={short}")
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]
    assert (await keyed.http.get(f"{API}/runs/{run}?token={token}")).status_code == 200
    for path in (f"{API}/runs/{run}", "/v1/models"):
        misplaced = await keyed.http.get(path, headers={"Authorization": f"Bearer {token}"})
        assert misplaced.status_code == 401
        assert "as ?token=" in misplaced.text
        assert token not in misplaced.text


async def test_a_token_permits_no_more_than_its_key(keyed: Stack, acme: httpx.AsyncClient) -> None:
    run = (await acme.post(f"{API}/query", json={"query": "hi", "agent": "echo"})).json()["queryId"]
    async with client_of(keyed, READER) as reader:
        assert (await reader.post(f"{API}/runs/{run}/token", json={"scopes": ["cancel"]})).status_code == 403
        assert (await reader.post(f"{API}/runs/{run}/token", json={"scopes": ["read"]})).status_code == 201
        assert (await reader.post(f"{API}/tokens", json={})).status_code == 403
    async with client_of(keyed, ADMIN) as admin:
        assert (await admin.post(f"{API}/runs/{run}/token", json={})).status_code == 404
        assert (await admin.post(f"{API}/runs/{run}/token?tenant=acme", json={})).status_code == 201


async def test_a_disconnect_cancels_only_with_the_scope(keyed: Stack, acme: httpx.AsyncClient) -> None:
    run = await slow_stream(acme)
    token = await issue(acme, run, scopes=["stream"])
    answer = await keyed.http.get(f"{API}/stream/{run}?token={token}&onDisconnect=cancel")
    assert answer.status_code == 403
    async with client_of(keyed, READER) as reader:
        assert (await reader.get(f"{API}/stream/{run}?onDisconnect=cancel")).status_code == 403
    await acme.post(f"{API}/runs/{run}/cancel")


async def test_a_start_token_starts_one_stream_once(keyed: Stack, acme: httpx.AsyncClient) -> None:
    issued = (await acme.post(f"{API}/tokens", json={"agent": "echo"})).json()
    url = f"{API}/stream?token={issued['token']}"
    first = await keyed.http.post(url, json={"query": "hi"})
    assert first.status_code == 200
    assert first.headers["X-Stream-Id"] == issued["runId"]
    again = await keyed.http.post(url, json={"query": "hi"})
    assert again.headers["X-Stream-Id"] == issued["runId"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await keyed.http.post(url, json={"query": "something else"})
    assert other.status_code == 422
    assert other.json()["type"] == "/problems/idempotency-key-reused"
    for more in (
        {"agent": "builtin"},
        {"webhookEndpoint": "crm"},
        {"webhookUrl": "https://a.example", "webhookSecret": "s"},
    ):
        assert (await keyed.http.post(url, json={"query": "hi", **more})).status_code == 403
    run = (await acme.get(f"{API}/runs/{issued['runId']}")).json()
    assert (run["tenant"], run["agent"]) == ("acme", "echo")


async def test_a_browser_starts_resumes_and_cancels_over_a_websocket(keyed: Stack, acme: httpx.AsyncClient) -> None:
    issued = (await acme.post(f"{API}/tokens", json={"agent": "teller"})).json()
    url = f"ws://127.0.0.1:{keyed.settings.port}{API}/stream/ws?token="
    async with connect(url + issued["token"], proxy=None) as socket:
        await socket.send(json.dumps({key: value for key, value in SLOW.items() if key != "agent"}))
        assert json.loads(await socket.recv())["streamId"] == issued["runId"]
    reading = await issue(acme, issued["runId"], scopes=["stream"])
    async with connect(url + reading, proxy=None) as socket:
        await socket.send(json.dumps({"streamId": issued["runId"]}))
        assert json.loads(await socket.recv())["streamId"] == issued["runId"]
        await socket.send(json.dumps({"cancel": True}))
        async with asyncio.timeout(10):
            while "error" not in (message := json.loads(await socket.recv())):
                pass
        assert message["error"]["status"] == 403
    async with connect(url + reading, proxy=None) as socket:
        await socket.send(json.dumps(SLOW))
        assert json.loads(await socket.recv())["error"]["status"] == 403
    async with connect(url + issued["token"], proxy=None) as socket:
        await socket.send(json.dumps({"streamId": issued["runId"]}))
        await socket.send(json.dumps({"cancel": True}))
        async with asyncio.timeout(20):
            while json.loads(await socket.recv()).get("status") != "cancelled":
                pass


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_revoking_a_key_ends_its_streams_and_those_of_its_tokens(keyed: Stack, accept: str) -> None:
    async with client_of(keyed, ADMIN) as admin:
        made = (
            await admin.post(f"{API}/admin/tenants/acme/keys", json={"scopes": ["runs:read", "runs:write"]})
        ).json()
        async with client_of(keyed) as client:
            client.headers.update({"X-API-Key": made["key"], "Accept": accept})
            run = await slow_stream(client)
            token = await issue(client, run)
            with_key = asyncio.create_task(client.get(f"{API}/stream/{run}"))
            with_token = asyncio.create_task(
                keyed.http.get(f"{API}/stream/{run}?token={token}", headers={"Accept": accept})
            )
            other = asyncio.create_task(_still_reads(keyed, run))
            await asyncio.sleep(1)
            assert not with_key.done()
            await admin.delete(f"{API}/admin/tenants/acme/keys/{made['id']}")
            async with asyncio.timeout(5):
                texts = [(await with_key).text, (await with_token).text]
        for text in texts:
            assert text.rstrip().splitlines()[-1].count("/problems/unauthorized") == 1
            assert "word" in text
        await other
        assert (await keyed.http.get(f"{API}/runs/{run}?token={token}")).status_code == 401
        await admin.post(f"{API}/runs/{run}/cancel?tenant=acme")


async def _still_reads(keyed: Stack, run: str) -> None:
    """A reader with another key reads on for 6 s."""
    async with client_of(keyed, ACME) as client, client.stream("GET", f"{API}/stream/{run}") as answer:
        async with asyncio.timeout(15):
            received = 0
            async for line in answer.aiter_lines():
                received += line.startswith("data:")
                if received == 60:
                    return
    raise AssertionError("the stream ended")


async def test_revoking_a_key_closes_its_websocket(keyed: Stack) -> None:
    async with client_of(keyed, ADMIN) as admin:
        made = (await admin.post(f"{API}/admin/tenants/acme/keys", json={"scopes": ["runs:write"]})).json()
        url = f"ws://127.0.0.1:{keyed.settings.port}{API}/stream/ws"
        async with connect(url, proxy=None, additional_headers={"X-API-Key": made["key"]}) as socket:
            await socket.send(json.dumps(SLOW))
            run = json.loads(await socket.recv())["streamId"]
            await admin.delete(f"{API}/admin/tenants/acme/keys/{made['id']}")
            with suppress(ConnectionClosed):
                async with asyncio.timeout(5):
                    while True:
                        await socket.recv()
        assert socket.close_code == 4401
        await admin.post(f"{API}/runs/{run}/cancel?tenant=acme")


async def test_a_stream_ends_when_its_token_expires(keyed: Stack, acme: httpx.AsyncClient) -> None:
    run = await slow_stream(acme)
    token = await issue(acme, run, seconds=2)
    async with asyncio.timeout(7):
        text = (await keyed.http.get(f"{API}/stream/{run}?token={token}")).text
    assert "/problems/unauthorized" in text
    await acme.post(f"{API}/runs/{run}/cancel")
