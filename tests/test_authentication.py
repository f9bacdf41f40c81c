"""Keys at the door: over raw HTTP, for all routes, against the real registry."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sevenfold.api.app import create_app
from sevenfold.api.components import build_components
from sevenfold.api.http.problem_handlers import list_routes
from sevenfold.contracts.access.api_keys import generate_key
from tests.support.events import event as cloud_event
from tests.support.events import published, wait_until_settled
from tests.support.stack import Stack, another_api, running_stack
from tests.support.tenants import TenantKey, client_of, key_config

ADMIN = TenantKey("default", ("admin",))
ACME = TenantKey("acme")
READER = TenantKey("acme", ("runs:read",))
EXPIRED = TenantKey("acme", more="expires = 2020-01-01T00:00:00Z")
BETA = TenantKey("beta")
API = "/api/agent"
TENANTS = f"{API}/admin/tenants"


@pytest.fixture(scope="module")
async def keyed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("keyed")
    config = key_config(ADMIN, ACME, READER, EXPIRED, BETA)
    async with running_stack(directory, more_config=config, temporal_ui_url="http://ui.example") as stack:
        yield stack


@pytest.fixture
async def admin(keyed: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(keyed, ADMIN) as client:
        yield client


@pytest.fixture
async def acme(keyed: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(keyed, ACME) as client:
        yield client


def swapped(key: TenantKey) -> str:
    """The id of one key with the secret of another, and a right checksum."""
    from sevenfold.contracts.access.api_keys import _checksum  # noqa: PLC0415

    body = f"sf_{key.new.key_id}_{ADMIN.text.split('_')[2][:-6]}"
    return body + _checksum(body)


WRONG = {
    "none": {},
    "empty": {"Authorization": ""},
    "basic": {"Authorization": "Basic dXNlcjpwYXNz"},
    "no scheme": {"Authorization": ACME.text},
    "unknown": {"Authorization": f"Bearer {generate_key().text}"},
    "expired": {"Authorization": f"Bearer {EXPIRED.text}"},
    "truncated": {"Authorization": f"Bearer {ACME.text[:-3]}"},
    "swapped": {"Authorization": f"Bearer {swapped(ACME)}"},
    "checksum": {"Authorization": f"Bearer {ACME.text[:-1]}{'A' if ACME.text[-1] != 'A' else 'B'}"},
    "lower case": {"Authorization": f"Bearer {ACME.text.lower()}"},
    "two headers": {"Authorization": f"Bearer {ACME.text}", "X-API-Key": ACME.text},
    "two words": {"Authorization": f"Bearer {ACME.text} {ACME.text}"},
    "the hash": {"Authorization": f"Bearer {ACME.new.hash}"},
    "long": {"Authorization": "Bearer sf_" + "a" * 20_000},
    "latin": {"Authorization": b"Bearer sf_\xe4\xff"},
    "jwt": {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."},
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_credential_is_401(keyed: Stack, name: str) -> None:
    answer = await keyed.http.get(f"{API}/runs", headers=WRONG[name])  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert answer.headers["www-authenticate"].startswith('Bearer realm="sevenfold"')
    assert ACME.text not in answer.text


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
@pytest.mark.parametrize("prefix", ["Bearer ", "bearer   "])
async def test_a_right_key_is_served(keyed: Stack, header: str, prefix: str) -> None:
    value = ACME.text if header == "X-API-Key" else prefix + ACME.text
    answer = await keyed.http.get(f"{API}/runs", headers={header: value})
    assert answer.status_code == 200


@pytest.mark.parametrize("parameter", ["api_key", "key", "authorization", "token", "access_token"])
async def test_a_key_in_the_address_is_no_credential(keyed: Stack, parameter: str) -> None:
    assert (await keyed.http.get(f"{API}/runs?{parameter}={ACME.text}")).status_code == 401


async def test_every_route_and_method_needs_a_key(keyed: Stack) -> None:
    """Also those that nobody thought of: the routes come from the application itself."""
    app = create_app(build_components(keyed.services, keyed.streams))
    paths = {getattr(route, "path", "") for route in list_routes(app.routes)}
    assert len(paths) > 40
    tried = 0
    open_paths = {"/health/live", "/health/ready", "/problems", "/problems/{name}", "/approvals/{token}"}
    # Messages of SNS are signed instead.
    for path in sorted(paths - open_paths - {f"{API}/events/sns"}):
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            answer = await keyed.http.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, f"{method} {path}"
            tried += 1
    assert tried > 300
    for path in ("/health/live", "/health/ready", "/problems", "/problems/unauthorized"):
        assert (await keyed.http.get(path)).status_code == 200
    assert (await keyed.http.post(f"{API}/events/sns", content=b"{}")).status_code == 404, "no topic is configured"
    assert (await keyed.http.get(f"{API}/events/sns")).status_code == 401


@pytest.mark.parametrize("path", ["/", "/nothing", "//api/agent/runs", "/api/agent/../agent/runs", "/API/agent/runs"])
async def test_paths_without_a_route_need_a_key(keyed: Stack, path: str) -> None:
    assert (await keyed.http.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["/health/live/", "/health/", "/health/live/../../api/agent/runs", "/health/x"])
async def test_only_the_probes_themselves_need_no_key(keyed: Stack, path: str) -> None:
    assert (await keyed.http.get(path)).status_code == 401


async def test_a_websocket_without_a_key_is_refused_before_the_handshake(keyed: Stack) -> None:
    url = f"ws://127.0.0.1:{keyed.settings.port}{API}/stream/ws"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, proxy=None):
            pass
    assert refused.value.response.status_code == 401
    async with connect(url, proxy=None, additional_headers=ACME.headers) as socket:
        await socket.send(json.dumps({"query": "hi", "agent": "echo"}))
        assert "streamId" in json.loads(await socket.recv())


async def test_a_refused_body_is_not_asked_for_and_the_connection_closes(keyed: Stack) -> None:
    """No `100 Continue`, so a client that waits for it never sends its megabytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", keyed.settings.port)
    writer.write(
        b"POST /api/agent/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n"
        b"Content-Type: application/json\r\n\r\n"
    )
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in answer


SCOPED = [
    ("POST", "/query", "runs:write"),
    ("POST", "/stream", "runs:write"),
    ("POST", "/runs/x/cancel", "runs:write"),
    ("GET", "/runs", "runs:read"),
    ("GET", "/agents", "runs:read"),
    ("GET", "/stats", "metrics:read"),
    ("POST", "/events", "events:write"),
    ("GET", "/events", "events:read"),
    ("GET", "/events/stream", "events:read"),
    ("PUT", "/subscriptions/x", "events:write"),
    ("GET", "/dead-letters", "events:read"),
    ("POST", "/dead-letters/redrive", "events:write"),
    ("GET", "/webhooks/deliveries", "webhooks:read"),
    ("POST", "/webhooks/deliveries/redeliver", "webhooks:write"),
    ("GET", "/webhooks/endpoints", "webhooks:read"),
    ("POST", "/webhooks/endpoints", "webhooks:write"),
    ("PATCH", "/webhooks/endpoints/whe_none", "webhooks:write"),
    ("POST", "/webhooks/endpoints/whe_none/test", "webhooks:write"),
    ("GET", "/admin/tenants", "admin"),
    ("POST", "/admin/tenants", "admin"),
    ("DELETE", "/admin/tenants/acme/keys/x", "admin"),
]


@pytest.mark.parametrize(("method", "path", "scope"), SCOPED)
async def test_each_request_needs_its_scope(
    keyed: Stack, admin: httpx.AsyncClient, method: str, path: str, scope: str
) -> None:
    others = [
        one for one in ("runs:read", "runs:write", "events:read", "events:write", "webhooks:read") if one != scope
    ]
    made = (await admin.post(f"{TENANTS}/acme/keys", json={"scopes": others})).json()
    answer = await keyed.http.request(method, API + path, headers={"X-API-Key": made["key"]})
    assert answer.status_code == 403
    assert answer.headers["connection"] == "close"
    assert scope in answer.json()["detail"]
    assert f'scope="{scope}"' in answer.headers["www-authenticate"]


async def test_a_created_key_works_at_once_and_in_other_processes_within_a_second(
    keyed: Stack, admin: httpx.AsyncClient
) -> None:
    async with another_api(keyed) as other:
        assert (await other.http.get(f"{API}/runs", headers=ACME.headers)).status_code == 200
        made = (await admin.post(f"{TENANTS}/acme/keys", json={"scopes": ["runs:read"], "name": "web"})).json()
        header = {"Authorization": f"Bearer {made['key']}"}
        assert (await keyed.http.get(f"{API}/runs", headers=header)).status_code == 200
        await asyncio.sleep(1)
        assert (await other.http.get(f"{API}/runs", headers=header)).status_code == 200
        assert (await admin.delete(f"{TENANTS}/acme/keys/{made['id']}")).status_code == 204
        assert (await keyed.http.get(f"{API}/runs", headers=header)).status_code == 401
        await asyncio.sleep(1)
        assert (await other.http.get(f"{API}/runs", headers=header)).status_code == 401


async def test_a_rotated_key_works_until_the_overlap_ends(keyed: Stack, admin: httpx.AsyncClient) -> None:
    old = (await admin.post(f"{TENANTS}/acme/keys", json={"scopes": ["runs:read"], "name": "web"})).json()
    new = await admin.post(f"{TENANTS}/acme/keys/{old['id']}/rotate", json={"overlapSeconds": 1})
    assert new.status_code == 201
    assert new.headers["cache-control"] == "no-store"
    assert (new.json()["scopes"], new.json()["name"]) == (["runs:read"], "web")
    for key in (old, new.json()):
        assert (await keyed.http.get(f"{API}/runs", headers={"X-API-Key": key["key"]})).status_code == 200
    await asyncio.sleep(1.1)
    assert (await keyed.http.get(f"{API}/runs", headers={"X-API-Key": old["key"]})).status_code == 401
    assert (await keyed.http.get(f"{API}/runs", headers={"X-API-Key": new.json()["key"]})).status_code == 200


async def test_secrets_are_shown_once_and_stored_nowhere(keyed: Stack, admin: httpx.AsyncClient) -> None:
    made = (await admin.post(f"{TENANTS}/acme/keys", json={"scopes": ["runs:read"]})).json()
    secret = made["key"].split("_")[2]
    assert secret not in (await admin.get(f"{TENANTS}/acme/keys")).text
    history = await keyed.temporal.get_workflow_handle("tenants:registry").fetch_history()
    assert secret not in history.to_json()
    files = [path for path in keyed.settings.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]


async def test_the_last_use_of_a_key_is_recorded(admin: httpx.AsyncClient, acme: httpx.AsyncClient) -> None:
    assert (await acme.get(f"{API}/runs")).status_code == 200

    async def last_use() -> str | None:
        keys = (await admin.get(f"{TENANTS}/acme/keys")).json()["items"]
        return next(key["lastUsedAt"] for key in keys if key["id"] == ACME.new.key_id)

    async with asyncio.timeout(15):
        while (at := await last_use()) is None:
            await asyncio.sleep(0.2)
    assert at.endswith(":00Z")


async def test_configured_tenants_and_keys_are_changed_in_the_file_only(admin: httpx.AsyncClient) -> None:
    for method, path in (
        ("DELETE", "/acme"),
        ("DELETE", f"/acme/keys/{ACME.new.key_id}"),
        ("POST", f"/acme/keys/{ACME.new.key_id}/rotate"),
        ("PUT", "/acme"),
    ):
        answer = await admin.request(method, TENANTS + path, json={} if method != "DELETE" else None)
        assert answer.status_code == 409
        assert answer.json()["type"] == "/problems/access-fixed"


@pytest.mark.parametrize(
    "name", ["circuit", "limits", "tenants", "erasure", "all", "A", "-a", "a" * 41, "a:b", "a_b", ""]
)
async def test_reserved_and_malformed_names_are_refused(admin: httpx.AsyncClient, name: str) -> None:
    answer = await admin.post(TENANTS, json={"name": name})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/name"


async def test_a_tenant_uses_only_its_agents(keyed: Stack, admin: httpx.AsyncClient) -> None:
    await admin.post(TENANTS, json={"name": "gamma", "agents": ["echo"]})
    made = (
        await admin.post(f"{TENANTS}/gamma/keys", json={"scopes": ["runs:read", "runs:write", "events:write"]})
    ).json()
    headers = {"X-API-Key": made["key"]}
    agents = (await keyed.http.get(f"{API}/agents", headers=headers)).json()["items"]
    assert [agent["name"] for agent in agents] == ["echo"]
    for body in ({"query": "hi", "agent": "builtin"}, {"query": "hi"}):
        answer = await keyed.http.post(f"{API}/query", headers=headers, json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/agent"
    answer = await keyed.http.post(f"{API}/query", headers=headers, json={"query": "hi", "agent": "echo"})
    assert answer.status_code == 200
    subscription = {"name": "s", "filter": {"exact": {"type": "a"}}, "task": "query", "agent": "builtin"}
    assert (await keyed.http.post(f"{API}/subscriptions", headers=headers, json=subscription)).status_code == 422


async def test_administrators_see_all_tenants_and_filter_by_one(
    keyed: Stack, admin: httpx.AsyncClient, acme: httpx.AsyncClient
) -> None:
    run = (await acme.post(f"{API}/query", json={"query": "hi", "agent": "echo"})).json()["queryId"]

    async def listed(query: str = "") -> list[str]:
        return [item["id"] for item in (await admin.get(f"{API}/runs{query}")).json()["items"]]

    async with asyncio.timeout(10):
        while run not in await listed():
            await asyncio.sleep(0.1)
    assert run in await listed("?tenant=acme")
    assert run not in await listed("?tenant=beta")
    assert (await admin.get(f"{API}/runs/{run}")).status_code == 404
    shown = await admin.get(f"{API}/runs/{run}?tenant=acme")
    assert shown.json()["tenant"] == "acme"
    assert shown.json()["links"]["temporalUi"].startswith("http://ui.example/")
    assert (await acme.get(f"{API}/runs/{run}")).json()["links"]["temporalUi"] is None
    assert (await admin.get(f"{API}/runs?tenant=nobody")).status_code == 404
    assert (await acme.get(f"{API}/runs?tenant=beta")).status_code == 422


async def test_a_subscription_is_inactive_while_its_tenant_may_not_use_the_agent(
    keyed: Stack, admin: httpx.AsyncClient
) -> None:
    await admin.post(TENANTS, json={"name": "delta"})
    made = (await admin.post(f"{TENANTS}/delta/keys", json={"scopes": ["events:read", "events:write"]})).json()
    async with client_of(keyed) as delta:
        delta.headers["X-API-Key"] = made["key"]
        body = {"filter": {"exact": {"type": "d.t"}}, "task": "query", "agent": "echo"}
        assert (await delta.put(f"{API}/subscriptions/s", json=body)).json()["isActive"] is True
        for agents, reactions in ((["builtin"], 0), (["echo"], 1)):
            await admin.put(f"{TENANTS}/delta", json={"agents": agents})
            await asyncio.sleep(1)
            shown = (await delta.get(f"{API}/subscriptions/s")).json()
            assert shown["isActive"] is bool(reactions)
            event = await published(delta, cloud_event("d.t"))
            assert len((await wait_until_settled(delta, event))["reactions"]) == reactions
