"""The proxy configurations of docs/deployment.md, in front of a running gateway."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from bench.ports import free_port
from bench.server_sent_events import events
from tests.support.certificates import Certificate, make_certificate
from tests.support.reverse_proxies import NAME, ReverseProxy, is_installed, running_proxy
from tests.support.stack import Stack, running_stack

KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(not is_installed(kind), reason=f"needs {kind}"))
    for kind in ("nginx", "caddy", "envoy")
]
SLOW = {"query": "hi", "agent": "teller", "params": {"say": ["one ", "two ", "three"], "pause": 0.4}}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), NAME)


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("proxied"), public_url=f"https://{NAME}") as stack:
        yield stack


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest,
    gateway: Stack,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ReverseProxy]:
    directory = tmp_path_factory.mktemp("proxy") / request.param
    with running_proxy(request.param, gateway.settings.port, certificate, directory) as running:
        yield running


@asynccontextmanager
async def _client(proxy: ReverseProxy, certificate: Certificate) -> AsyncIterator[httpx.AsyncClient]:
    async def name_server(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = NAME

    async with httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{proxy.port}",
        headers={"Host": NAME},
        verify=certificate.client,
        event_hooks={"request": [name_server]},
        trust_env=False,
        timeout=30,
    ) as http:
        yield http


@pytest.fixture
async def https(proxy: ReverseProxy, certificate: Certificate) -> AsyncIterator[httpx.AsyncClient]:
    async with _client(proxy, certificate) as http:
        async with asyncio.timeout(15):  # until the proxy's own health check has passed
            while (await http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.1)
        yield http


async def test_query_passes_and_links_name_the_public_url(https: httpx.AsyncClient) -> None:
    answer = await https.post(
        "/api/agent/query", json={"query": "hi", "agent": "echo"}, headers={"Origin": f"https://{NAME}"}
    )
    assert answer.status_code == 200, answer.text
    gateway = (await https.get("/asyncapi.json")).json()["servers"]["gateway"]
    assert (gateway["host"], gateway["protocol"]) == (NAME, "https")


@pytest.mark.parametrize("form", ["text/event-stream", "application/x-ndjson"])
async def test_streams_arrive_piece_by_piece(https: httpx.AsyncClient, form: str) -> None:
    arrivals: list[float] = []
    headers = {"Accept": form, "Accept-Encoding": "gzip, br, zstd"}
    async with https.stream("POST", "/api/agent/stream", json=SLOW, headers=headers) as answer:
        assert answer.status_code == 200
        if form == "text/event-stream":
            arrivals += [time.monotonic() async for event in events(answer) if event.is_chunk]
        else:
            arrivals += [time.monotonic() async for line in answer.aiter_lines() if "chunk" in line]
    assert len(arrivals) >= 3
    assert arrivals[1] - arrivals[0] > 0.2
    assert arrivals[2] - arrivals[1] > 0.2


async def test_websockets_pass(https: httpx.AsyncClient, proxy: ReverseProxy, certificate: Certificate) -> None:
    url = f"wss://{NAME}/api/agent/stream/ws"
    address = {"host": "127.0.0.1", "port": proxy.port}
    arrivals: list[float] = []
    async with connect(url, ssl=certificate.client, proxy=None, **address) as opened, asyncio.timeout(20):
        await opened.send(json.dumps(SLOW))
        messages = []
        async for message in opened:
            messages.append(json.loads(message))
            arrivals.append(time.monotonic())
    assert [message["chunk"] for message in messages[1:]] == ["one ", "two ", "three", ""]
    assert arrivals[3] - arrivals[1] > 0.4


async def test_bodies_pass_up_to_the_limit(https: httpx.AsyncClient) -> None:
    def query(size: int) -> dict[str, object]:
        return {"query": "hi", "agent": "echo", "context": {"lines": ["y" * 1_000] * (size // 1_000)}}

    assert (await https.post("/api/agent/query", json=query(5_000_000))).status_code == 200
    # Refused before its end, so the connection may break before the proxy (502) or the client has read the answer.
    with suppress(httpx.TransportError):
        assert (await https.post("/api/agent/query", json=query(12_000_000))).status_code in (413, 502)


async def _send_secrets(http: httpx.AsyncClient) -> set[int]:
    statuses = set()
    for path in ("/health/live", "/api/agent/runs/qry_unknown/stream"):
        answer = await http.get(
            f"{path}?token=hunter2-token",
            headers={"Authorization": "Bearer hunter2-key", "X-API-Key": "hunter2-key", "Cookie": "c=hunter2-key"},
        )
        statuses.add(answer.status_code)
    return statuses


async def test_no_secret_is_logged(https: httpx.AsyncClient, proxy: ReverseProxy) -> None:
    await _send_secrets(https)
    async with asyncio.timeout(15):
        while "/health/live" not in proxy.logs():
            await asyncio.sleep(0.1)  # some proxies write their log in batches
    assert "hunter2" not in proxy.logs()


@pytest.mark.parametrize("kind", KINDS)
async def test_no_secret_is_logged_while_the_api_is_down(kind: str, certificate: Certificate, tmp_path: Path) -> None:
    with running_proxy(kind, free_port(), certificate, tmp_path / kind) as proxy:
        async with _client(proxy, certificate) as http:
            assert await _send_secrets(http) <= {502, 503}
    assert "hunter2" not in proxy.logs()
