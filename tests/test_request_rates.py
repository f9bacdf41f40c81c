"""Rates of requests: over two processes of the API, for tenants and keys."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.processes import EmbeddedTemporalOnly, is_live, until
from tests.support.stack import (
    Stack,
    another_api,
    http_client,
    make_settings,
    running_stack,
    sevenfold,
    until_ready,
)
from tests.support.tenants import TenantKey, client_of, key_config

ADMIN = TenantKey("default", ("admin",))
ACME, LIMITED = TenantKey("acme"), TenantKey("acme", more='rate = "5/s"')
BETA = TenantKey("beta")
API = "/api/agent"
RATE = '[tenants.acme]\nrate = "20/s"\n'


@pytest.fixture(scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    config = RATE + key_config(ADMIN, ACME, LIMITED, BETA)
    async with running_stack(tmp_path_factory.mktemp("rates"), more_config=config) as stack:
        yield stack


async def flood(clients: list[httpx.AsyncClient], seconds: float, in_flight: int) -> list[httpx.Response]:
    """Requests by all clients without a pause, so many at a time."""
    answers: list[httpx.Response] = []
    end = time.monotonic() + seconds

    async def ask(client: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            answers.append(await client.get(f"{API}/agents"))
            await asyncio.sleep(0.01)

    await asyncio.gather(*(ask(client) for client in clients for _ in range(in_flight)))
    return answers


async def test_a_key_above_its_rate_takes_nothing_from_its_tenants_other_keys(limited: Stack) -> None:
    """The tenant has 20/s, the flooding key 5/s of them."""
    async with client_of(limited, LIMITED) as flooding, client_of(limited, ACME) as other:
        await asyncio.gather(*(one.get(f"{API}/agents") for one in (flooding, other)))
        await asyncio.sleep(1.5)
        flooded = asyncio.create_task(flood([flooding], 5, 8))
        answers = []
        while not flooded.done():
            answers.append((await other.get(f"{API}/agents")).status_code)
            await asyncio.sleep(0.15)
    assert set(answers) == {200}
    statuses = [answer.status_code for answer in await flooded]
    assert statuses.count(429) > 2 * statuses.count(200) > 0


async def test_two_processes_together_hold_the_rate_of_a_tenant(limited: Stack) -> None:
    async with another_api(limited) as other, client_of(limited, ACME) as first, client_of(other, ACME) as second:
        await flood([first, second], 3, 2)  # Both have their part of the rate now.
        answers = await flood([first, second], 5, 4)
        served = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(served) + len(refused) == len(answers)
        # 20 a second, and what may come at once after a pause.
        assert 60 <= len(served) <= 20 * 5 + 2 * 20
        problem = refused[0].json()
        assert problem["type"] == "/problems/quota-exceeded"
        assert problem["violated-policies"] == ["tenant-requests"]
        assert refused[0].headers["RateLimit-Policy"] == '"tenant-requests";q=20;w=1;qu="requests"'
        assert refused[0].headers["RateLimit"].startswith('"tenant-requests";r=0;t=')
        assert int(refused[0].headers["Retry-After"]) >= 1
        async with client_of(limited, BETA) as beta:
            assert {answer.status_code for answer in await flood([beta], 1, 4)} == {200}
        assert (await limited.http.get("/health/ready")).status_code == 200


async def test_a_key_has_a_rate_of_its_own(limited: Stack) -> None:
    await asyncio.sleep(2)
    async with client_of(limited, LIMITED) as client:
        answers = await flood([client], 3, 3)
        served = sum(answer.status_code == 200 for answer in answers)
        assert 8 <= served <= 5 * 3 + 10
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["violated-policies"] == ["key-requests"]


async def test_a_changed_rate_acts_within_a_second(limited: Stack) -> None:
    async with client_of(limited, ADMIN) as admin:
        made = await admin.post(f"{API}/admin/tenants", json={"name": "gamma", "rate": "2/s"})
        assert made.json()["rate"] == "2/s"
        key = (await admin.post(f"{API}/admin/tenants/gamma/keys", json={"scopes": ["runs:read"]})).json()["key"]
        async with client_of(limited) as gamma:
            gamma.headers["X-API-Key"] = key
            assert 429 in {answer.status_code for answer in await flood([gamma], 2, 4)}
            await admin.put(f"{API}/admin/tenants/gamma", json={})
            await asyncio.sleep(1)
            assert {answer.status_code for answer in await flood([gamma], 1, 4)} == {200}


@pytest.mark.parametrize("rate", ["0/s", "1/d", "-1/s", "1.5/s", "", "many", 3, "99999999999/s"])
async def test_malformed_rates_are_refused(limited: Stack, rate: object) -> None:
    async with client_of(limited, ADMIN) as admin:
        answer = await admin.post(f"{API}/admin/tenants", json={"name": "odd", "rate": rate})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/rate"


async def test_without_a_worker_requests_are_admitted(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, more_config=RATE + key_config(ACME))
    async with EmbeddedTemporalOnly(settings) as address:
        more = {"TEMPORAL_ADDRESS": address, "SEVENFOLD_SECRET_KEY": "A" * 43 + "="}
        with sevenfold("api", settings, **more) as api:
            async with http_client(settings.port) as http:
                await until(lambda: is_live(http, api), 30)
                body = {"task": "work", "agent": "echo"}
                answer = await http.post(f"{API}/tasks", json=body, headers=ACME.headers)
                assert answer.status_code == 202


async def test_a_gateway_that_starts_again_has_the_whole_rate(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, more_config='[tenants.acme]\nrate = "5/s"\n' + key_config(ACME))
    for _ in range(3):
        with sevenfold("dev", settings) as gateway:
            await until_ready(settings.port, process=gateway)
            async with http_client(settings.port) as http:
                answers = [await http.get(f"{API}/agents", headers=ACME.headers) for _ in range(4)]
            assert {answer.status_code for answer in answers} == {200}
            assert gateway.terminate() == 0
