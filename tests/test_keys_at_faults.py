"""Keys while Temporal is away, access tokens of a real issuer, and what logs show: against real processes."""

import asyncio
import json
from pathlib import Path

import httpx

from sevenfold.contracts.access.api_keys import generate_key
from sevenfold.contracts.payload import JsonObject
from tests.support.oidc_issuer import AUDIENCE, running_issuer
from tests.support.processes import EmbeddedTemporalOnly, is_live, until
from tests.support.stack import http_client, make_settings, running_stack, sevenfold, until_ready
from tests.support.tenants import TenantKey, client_of, key_config

ADMIN = TenantKey("default", ("admin",))
ACME = TenantKey("acme")
API = "/api/agent"


async def status(http: httpx.AsyncClient, key: str) -> int:
    return (await http.get(f"{API}/agents", headers={"X-API-Key": key})).status_code


async def test_known_keys_work_while_temporal_is_away_and_unknown_ones_get_503(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, more_config=key_config(ADMIN, ACME))
    temporal = EmbeddedTemporalOnly(settings)
    more = {"SEVENFOLD_SECRET_KEY": "A" * 43 + "="}
    async with http_client(settings.port) as http, temporal as address:
        more["TEMPORAL_ADDRESS"] = address
        with sevenfold("api", settings, "--with-worker", **more) as api:
            await until_ready(settings.port, process=api)
            body = {"scopes": ["runs:read"]}
            made = await http.post(f"{API}/admin/tenants/acme/keys", json=body, headers=ADMIN.headers)
            stored = made.json()["key"]
            assert await status(http, stored) == 200
            await temporal.__aexit__(None, None, None)
            await until(lambda: _is_503(http), 15)
            unknown = await http.get(f"{API}/agents", headers={"X-API-Key": generate_key().text})
            assert unknown.json()["type"] == "/problems/access-unavailable"
            assert unknown.headers["Retry-After"]
            # Their requests reach the handler: what it reads from Temporal is what fails.
            for key in (stored, ACME.text):
                answer = await http.post(f"{API}/patterns/recommend", json={}, headers={"X-API-Key": key})
                assert answer.status_code == 200
            typo = ACME.text[:-1] + ("a" if ACME.text[-1] != "a" else "b")
            assert await status(http, typo) == 401


async def _is_503(http: httpx.AsyncClient) -> bool:
    return await status(http, generate_key().text) == 503


async def test_an_api_that_starts_again_knows_the_created_keys(tmp_path: Path) -> None:
    """Also without a key in the file: losing the file does not open the gateway."""
    settings = make_settings(tmp_path, more_config=key_config(ADMIN))
    async with http_client(settings.port) as http:
        with sevenfold("dev", settings) as product:
            await until_ready(settings.port, process=product)
            body = {"scopes": ["runs:read"]}
            made = await http.post(f"{API}/admin/tenants/default/keys", json=body, headers=ADMIN.headers)
            assert made.status_code == 201
            product.kill()
        make_settings(tmp_path)  # Writes the file anew, without keys.
        with sevenfold("dev", settings) as product:
            await until_ready(settings.port, process=product)
            assert (await http.get(f"{API}/agents")).status_code == 401
            assert await status(http, ADMIN.text) == 401
            assert await status(http, made.json()["key"]) == 200


async def test_a_gateway_without_keys_manages_none(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        answer = await stack.http.post(f"{API}/admin/tenants", json={"name": "acme"})
        assert answer.status_code == 403
        assert "sevenfold keys create" in answer.json()["detail"]
        token = (await stack.http.post(f"{API}/tokens", json={"agent": "echo"})).json()
        url = f"{API}/stream?token={token['token']}"
        assert (await stack.http.post(url, json={"query": "hi"})).headers["X-Stream-Id"] == token["runId"]


async def test_access_tokens_of_an_issuer_are_accepted(tmp_path: Path) -> None:
    with running_issuer() as issuer:
        issuer.add_key("one", "ES256")
        config = f'{key_config(ACME)}\n[auth.oidc]\nissuer = "{issuer.url}"\naudience = "{AUDIENCE}"\n'
        async with running_stack(tmp_path, more_config=config) as stack, client_of(stack) as http:

            async def ask(token: str) -> httpx.Response:
                return await http.get(f"{API}/runs", headers={"Authorization": f"Bearer {token}"})

            assert (await ask(issuer.token("one"))).status_code == 200
            assert (await ask(issuer.token("one", tenant="nobody"))).status_code == 401
            assert (await ask(issuer.token("one", scope="events:read"))).status_code == 403
            expired = await ask(issuer.token("one", exp=1))
            assert expired.status_code == 401
            assert "expired" in expired.json()["detail"]
            assert (await http.get(f"{API}/runs", headers=ACME.headers)).status_code == 200


async def test_credentials_are_in_no_log_and_no_file(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, more_config=key_config(ADMIN, ACME), log_level="debug")
    with sevenfold("dev", settings) as product:
        await until_ready(settings.port, process=product)
        async with http_client(settings.port) as http:
            wrong = generate_key().text
            await http.get(f"{API}/runs", headers={"X-API-Key": wrong})
            started = await http.post(f"{API}/query", json={"query": "hi", "agent": "echo"}, headers=ACME.headers)
            run = started.json()["queryId"]
            token = (await http.post(f"{API}/runs/{run}/token", json={}, headers=ACME.headers)).json()["token"]
            assert (await http.get(f"{API}/runs/{run}?token={token}")).status_code == 200
            await http.post(f"{API}/runs/{run}?token={token}", content=b"{")
            history = json.dumps((await http.get(f"{API}/runs/{run}", headers=ACME.headers)).json())
        product.terminate()
        log = product.output()
    assert "api listens" in log or "Sevenfold is ready" in log
    files = [path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file()]
    for credential in (ACME.text.split("_")[2], ADMIN.text.split("_")[2], wrong.split("_")[2], token):
        assert credential not in log
        assert credential not in history
        assert not any(credential.encode() in content for content in files)


async def test_an_api_without_a_worker_answers_changes_with_503(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, more_config=key_config(ADMIN))
    async with EmbeddedTemporalOnly(settings) as address:
        more = {"TEMPORAL_ADDRESS": address, "SEVENFOLD_SECRET_KEY": "A" * 43 + "="}
        with sevenfold("api", settings, **more) as api:
            async with http_client(settings.port) as http:
                await until(lambda: is_live(http, api), 30)

                async def check(method: str, path: str, body: JsonObject | None, seconds: float) -> None:
                    answer = await http.request(method, f"{API}{path}", json=body, headers=ADMIN.headers)
                    assert answer.status_code == 503, path
                    assert "sevenfold worker" in answer.json()["detail"]
                    assert answer.elapsed.total_seconds() < seconds

                subscription: JsonObject = {"filter": {"exact": {"type": "x"}}, "task": "reports"}
                await asyncio.gather(
                    check("POST", "/admin/tenants/default/keys", {"scopes": ["runs:read"]}, 10),
                    check("PUT", "/subscriptions/reports", subscription, 15),
                    check("POST", "/webhooks/endpoints", {"name": "ours", "url": "https://example.com/"}, 15),
                )
                # Now the registry runs, but no worker has taken its first task.
                await check("DELETE", "/subscriptions/reports", None, 15)
