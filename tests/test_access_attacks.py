"""What attackers tried against keys and tokens, and got away with once."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sevenfold.api.app import create_app
from sevenfold.api.components import build_components
from sevenfold.api.http.problem_handlers import list_routes
from sevenfold.contracts.access.api_keys import generate_key
from sevenfold.contracts.access.principals import Scope
from sevenfold.contracts.access.tenant_registry import REGISTRY_WORKFLOW_ID
from tests.support.processes import until
from tests.support.stack import Stack, http_client, make_settings, running_stack, sevenfold, until_ready
from tests.support.tenants import TenantKey, client_of, key_config

API = "/api/agent"
TENANTS = f"{API}/admin/tenants"
ADMIN, ACME, WEAK = TenantKey("default", ("admin",)), TenantKey("acme"), TenantKey("acme", ("schedules:write",))
STARTER = TenantKey("acme", ("runs:write",))
SLOW = {"query": "hi", "agent": "teller", "params": {"say": ["word "] * 100, "pause": 0.1}}


@pytest.fixture(scope="module")
async def keyed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    config = key_config(ADMIN, ACME, WEAK, STARTER)
    async with running_stack(tmp_path_factory.mktemp("attacks"), more_config=config) as stack:
        yield stack


@pytest.fixture
async def admin(keyed: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(keyed, ADMIN) as client:
        yield client


@pytest.mark.parametrize("suffix", ["%0A", "%0D", "%00", "%7F", ";x", "/", "%20", "%2F", "/.", "//"])
async def test_no_address_is_less_strict_with_something_appended(keyed: Stack, suffix: str) -> None:
    """The router takes a line break at the end of a path for no character."""
    app = create_app(build_components(keyed.services, keyed.streams))
    paths = {getattr(route, "path", "") for route in list_routes(app.routes)}
    async with client_of(keyed, WEAK) as weak:
        for path in sorted(path for path in paths if path.startswith(API)):
            url = path.replace("{", "").replace("}", "") + suffix
            for method in ("GET", "POST", "PUT", "DELETE"):
                answer = await weak.request(method, url, json={} if method != "GET" else None)
                assert answer.status_code in (403, 404, 405), (method, url, answer.text)


async def test_keys_of_a_removed_tenant_do_not_come_back_with_its_name(
    admin: httpx.AsyncClient, keyed: Stack
) -> None:
    for number in range(5):
        name = f"ghost-{number}"
        await admin.post(TENANTS, json={"name": name})
        creates = [admin.post(f"{TENANTS}/{name}/keys", json={"scopes": ["runs:read"]}) for _ in range(8)]
        *made, removed = await asyncio.gather(*creates, admin.delete(f"{TENANTS}/{name}"))
        assert removed.status_code == 204
        keys = [answer.json()["key"] for answer in made if answer.status_code == 201]
        assert {answer.status_code for answer in made} <= {201, 404}
        assert (await admin.post(TENANTS, json={"name": name})).status_code == 201
        for key in keys:
            assert (await keyed.http.get(f"{API}/runs", headers={"X-API-Key": key})).status_code == 401


async def test_a_key_is_rotated_once_however_many_ask(admin: httpx.AsyncClient) -> None:
    made = (await admin.post(f"{TENANTS}/acme/keys", json={"scopes": ["runs:read"]})).json()
    url = f"{TENANTS}/acme/keys/{made['id']}"
    overlaps = [0, 7_776_000] * 10
    answers = await asyncio.gather(*(admin.post(f"{url}/rotate", json={"overlapSeconds": one}) for one in overlaps))
    (won,) = [answer.json() for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} == {201, 409}
    keys = {key["id"]: key for key in (await admin.get(f"{TENANTS}/acme/keys")).json()["items"]}
    assert keys[made["id"]]["replacedBy"] == won["id"]
    gone = await admin.post(f"{TENANTS}/acme/keys", json={"scopes": ["runs:read"], "expiresAt": "2099-01-01"})
    successor = await admin.post(f"{TENANTS}/acme/keys/{gone.json()['id']}/rotate", json={})
    assert successor.json()["expiresAt"].startswith("2099-01-01"), "what it inherits is not the overlap"


async def test_a_handshake_that_cannot_be_read_is_refused_at_once(keyed: Stack) -> None:
    """Without a credential it would hold its connection for ever."""
    head = (
        "GET /api/agent/stream/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    many = "".join(f"X-{number}: 1\r\n" for number in range(140))
    for more in ("Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", f"Cookie: {'a' * 9_000}\r\n", many):
        reader, writer = await asyncio.open_connection("127.0.0.1", keyed.settings.port)
        writer.write(f"{head}{more}\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431")), (more[:30], answer[:100])
        assert b"/problems/" in answer


async def test_a_websocket_without_a_route_is_a_problem(keyed: Stack) -> None:
    for path in ("/docs", f"{API}/runs", "/nothing"):
        url = f"ws://127.0.0.1:{keyed.settings.port}{path}"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, proxy=None, additional_headers=ADMIN.headers):
                pass
        assert refused.value.response.status_code == 404
        assert refused.value.response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["stream", "runs"])
async def test_an_expired_credential_does_not_count_as_a_disconnect(keyed: Stack, path: str) -> None:
    """`onDisconnect=cancel` is for readers that go away."""
    async with client_of(keyed, ACME) as acme:
        async with acme.stream("POST", f"{API}/stream", json=SLOW) as answer:
            run = answer.headers["X-Stream-Id"]
        body = {"scopes": ["stream", "cancel"], "seconds": 3}
        token = (await acme.post(f"{API}/runs/{run}/token", json=body)).json()["token"]
        url = f"{API}/stream/{run}" if path == "stream" else f"{API}/runs/{run}/stream"
        text = (await keyed.http.get(f"{url}?token={token}&onDisconnect=cancel")).text
        assert "The run continues" in text
        await asyncio.sleep(1)
        assert (await acme.get(f"{API}/runs/{run}")).json()["status"] == "processing"
        await acme.post(f"{API}/runs/{run}/cancel")


async def test_cancelling_needs_its_own_scope_and_reads_nothing(keyed: Stack) -> None:
    async with client_of(keyed, ACME) as acme, client_of(keyed, STARTER) as starter:
        body = {"query": "the question", "agent": "echo", "metadata": {"a": "the metadata"}}
        run = (await acme.post(f"{API}/query", json=body)).json()["queryId"]
        token = (await acme.post(f"{API}/runs/{run}/token", json={"scopes": ["cancel"]})).json()["token"]
        for answer in (
            await starter.post(f"{API}/runs/{run}/cancel"),
            await keyed.http.post(f"{API}/runs/{run}/cancel?token={token}"),
        ):
            assert answer.status_code == 200
            assert answer.json()["status"] == "completed"
            assert "the question" not in answer.text
            assert "the metadata" not in answer.text
        assert "the question" in (await acme.post(f"{API}/runs/{run}/cancel")).text


async def test_a_start_token_starts_no_run_with_a_webhook(keyed: Stack) -> None:
    async with client_of(keyed, ACME) as acme:
        token = (await acme.post(f"{API}/tokens", json={"agent": "echo"})).json()["token"]
    body = {"query": "hi", "webhookUrl": "http://127.0.0.1:9/x", "webhookSecret": "s" * 30}
    answer = await keyed.http.post(f"{API}/stream?token={token}", json=body)
    assert answer.status_code == 403


async def test_other_parameters_may_look_like_a_tenant(admin: httpx.AsyncClient) -> None:
    assert (await admin.get(f"{API}/runs?task=tenant.x")).status_code == 200
    assert "xtenant" in (await admin.get(f"{API}/runs?xtenant=a")).text
    assert (await admin.get(f"{API}/runs?%74enant=acme")).status_code == 200


@pytest.mark.slow
async def test_a_registry_of_hundreds_of_kilobytes_is_in_no_payload_store(tmp_path: Path) -> None:
    """Payload stores remove by age, and the registry has no end. It also survives continue-as-new."""
    dynamic = ("limit.historyCount.suggestContinueAsNew=400",)
    config = key_config(ADMIN)
    async with running_stack(tmp_path, more_config=config, temporal_dynamic_config=dynamic) as stack:
        async with client_of(stack, ADMIN) as admin:
            gate = asyncio.Semaphore(20)

            async def create(number: int) -> httpx.Response:
                async with gate:
                    body = {"scopes": list(Scope), "name": f"{number} " + "x" * 95}
                    answer = await admin.post(f"{TENANTS}/default/keys", json=body)
                    while answer.status_code == 503:  # On a busy machine a change may take longer than its 5 s.
                        answer = await admin.post(f"{TENANTS}/default/keys", json=body)
                    return answer

            made = await asyncio.gather(*(create(number) for number in range(700)))
            assert {answer.status_code for answer in made} == {201}
            handle = stack.temporal.get_workflow_handle(REGISTRY_WORKFLOW_ID)
            description = await handle.describe()
            history = await stack.temporal.get_workflow_handle(
                REGISTRY_WORKFLOW_ID, run_id=description.run_id
            ).fetch_history()
            started = history.events[0].workflow_execution_started_event_attributes
            assert started.continued_execution_run_id, "it has continued as new"
            assert len((await admin.get(f"{TENANTS}/default/keys")).json()["items"]) >= 701
            newest = made[-1].json()["key"]
            assert (await stack.http.get(f"{API}/runs", headers={"X-API-Key": newest})).status_code == 200
        payloads = stack.settings.data_dir / "payloads"
        assert not [path for path in payloads.rglob("*") if path.is_file()]


async def test_keys_do_not_count_as_revoked_when_the_registry_was_ended(tmp_path: Path) -> None:
    async with running_stack(tmp_path, more_config=key_config(ADMIN)) as stack, client_of(stack, ADMIN) as admin:
        made = (await admin.post(f"{TENANTS}/default/keys", json={"scopes": ["runs:read"]})).json()["key"]
        await stack.temporal.get_workflow_handle(REGISTRY_WORKFLOW_ID).terminate()
        await until(lambda: _is(stack, generate_key().text, 503))
        assert await _is(stack, made, 200)
        assert await _is(stack, ADMIN.text, 200)


async def _is(stack: Stack, key: str, status: int) -> bool:
    return (await stack.http.get(f"{API}/runs", headers={"X-API-Key": key})).status_code == status


async def test_tokens_and_keys_of_websockets_are_in_no_log(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, more_config=key_config(ACME), log_level="debug")
    with sevenfold("dev", settings) as product:
        await until_ready(settings.port, process=product)
        async with http_client(settings.port) as http:
            issued = await http.post(f"{API}/tokens", json={"agent": "echo"}, headers=ACME.headers)
            token = issued.json()["token"]
        url = f"ws://127.0.0.1:{settings.port}{API}/stream/ws"
        for query, headers in (
            (f"?token={token}", {"Origin": "http://evil.example"}),
            (f"?token={token}", ACME.headers),
            (f"?%74oken={token}", {}),
            (f"?token={token}&token={token}", {}),
            (f"?x=1&token={token}", {"Host": "evil.example"}),
        ):
            try:
                async with connect(url + query, proxy=None, additional_headers=headers) as socket:
                    await socket.send(json.dumps({"query": "hi"}))
                    await socket.recv()
            except InvalidStatus:
                pass
        product.terminate()
        log = product.output()
    assert "stream/ws" in log
    assert token.removeprefix("sfr_")[:40] not in log
    assert ACME.text not in log
    assert "without completing handshake" not in log


async def test_run_tokens_end_with_the_scopes_of_their_key(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, more_config=key_config(ACME))
    async with http_client(settings.port) as http:
        with sevenfold("dev", settings) as product:
            await until_ready(settings.port, process=product)
            body = {"query": "hi", "agent": "echo"}
            run = (await http.post(f"{API}/query", json=body, headers=ACME.headers)).json()["queryId"]
            token = (await http.post(f"{API}/runs/{run}/token", json={}, headers=ACME.headers)).json()["token"]
            assert (await http.get(f"{API}/runs/{run}?token={token}")).status_code == 200
            product.terminate()
        narrowed = ACME.config.replace('"runs:read", ', "")
        make_settings(tmp_path, more_config=narrowed)  # Writes the file anew.
        with sevenfold("dev", settings) as product:
            await until_ready(settings.port, process=product)
            assert (await http.get(f"{API}/runs/{run}?token={token}")).status_code == 401
