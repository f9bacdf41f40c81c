"""The API's connections: half-sent requests, clients that stand still, HTTP/1.0, HEAD, too many clients."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import until
from tests.support.stack import Stack, http_client, make_settings, running_stack, sevenfold, until_ready

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("limited")
    async with running_stack(directory, head_seconds=1, body_idle_seconds=1, max_connections=30) as stack:
        yield stack


async def exchange(stack: Stack, *pieces: bytes, pause: float = 0.0, wait: float = 10) -> bytes:
    """All that the server answers to raw bytes until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.settings.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        async with asyncio.timeout(wait):
            return await reader.read()
    finally:
        writer.close()


def post(body: bytes, length: int) -> bytes:
    head = "POST /api/agent/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode() + body


async def test_incomplete_request_head_times_out_with_a_problem(limited: Stack) -> None:
    answer = await exchange(limited, b"GET /health/live HTTP/1.1\r\nHo")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert b"request-timeout" in answer


async def test_silent_connection_is_closed(limited: Stack) -> None:
    assert await exchange(limited) == b""


async def test_stalled_body_times_out(limited: Stack) -> None:
    answer = await exchange(limited, post(b'{"query": "', 100))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"no progress" in answer


async def test_dripping_body_times_out(limited: Stack) -> None:
    started_at = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", limited.settings.port)
    writer.write(post(b'{"query": "', 1_000_000))
    answered = asyncio.create_task(reader.read(20))
    while not answered.done() and time.monotonic() - started_at < 10:
        writer.write(b"x")
        await asyncio.sleep(0.1)
    writer.close()
    assert (await answered).startswith(b"HTTP/1.1 408 ")


async def test_slow_but_steady_body_is_accepted(limited: Stack) -> None:
    body = b'{"query": "' + b"x" * 8_000 + b'"}'
    pieces = [body[at : at + 1_500] for at in range(0, len(body), 1_500)]
    head = post(b"", len(body)).replace(b"Host: localhost", b"Host: localhost\r\nConnection: close")
    answer = await exchange(limited, head, *pieces, pause=0.4)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 65_000 + b"\r\n\r\n",
        b"GET /health/live?" + b"x" * 65_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
        + b"".join(b"X-%d: 1\r\n" % n for n in range(300))
        + b"\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 3_000_000,
    ],
)
async def test_oversized_request_head_is_refused(limited: Stack, head: bytes) -> None:
    answer = await exchange(limited, head)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"head-too-large" in answer


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 99]
)
async def test_invalid_http_is_answered_with_a_problem(limited: Stack, garbage: bytes) -> None:
    answer = await exchange(limited, garbage)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize(
    ("method", "change", "status"),
    [
        ("POST", {}, 400),
        ("GET", {"Sec-WebSocket-Version": "8"}, 426),
        ("GET", {"Sec-WebSocket-Version": ""}, 426),
        ("GET", {"Sec-WebSocket-Key": ""}, 400),
        ("GET", {"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
        ("GET", {"Sec-WebSocket-Key": "\u00e4" * 24}, 400),
    ],
)
async def test_invalid_websocket_handshake_is_answered_with_a_problem(
    limited: Stack, method: str, change: dict[str, str], status: int
) -> None:
    headers = "".join(f"{name}: {value}\r\n" for name, value in (HANDSHAKE | change).items())
    head = f"{method} /api/agent/stream/ws HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
    answer = await exchange(limited, head.encode("latin-1"))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/problem+json" in answer
    if status == 426:
        assert b"sec-websocket-version: 13\r\n" in answer.lower()


async def test_http_1_0_response_is_not_chunked(limited: Stack) -> None:
    stream = b'{"query": "hi", "agent": "simulator", "params": {"seconds": 0.2}}'
    head = b"POST /api/agent/stream HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
        stream
    )
    answer = await exchange(limited, head + stream)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body.startswith(b"retry: 2000")
    assert b'"done":true' in body
    assert body.endswith(b"-end\n\n")
    answer = await exchange(limited, b"GET /health/live HTTP/1.0\r\n\r\n")
    assert answer.endswith(b'{"status":"ok"}')


async def test_every_get_route_answers_head(limited: Stack) -> None:
    document = (await limited.http.get("/openapi.json")).json()
    run_id = (await limited.query()).json()["queryId"]
    known = {"run_id": run_id}
    for path in [path for path, methods in document["paths"].items() if "get" in methods]:
        address = path
        for name in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
            address = address.replace(f"{{{name}}}", known.get(name, "none"))
        head = await limited.http.head(address)
        assert head.content == b""
        if not path.endswith("/stream"):
            get = await limited.http.get(address)
            assert head.status_code == get.status_code, address
    streamed = await limited.http.head(f"/api/agent/runs/{run_id}/stream")
    assert streamed.status_code == 200
    assert streamed.headers["content-type"].startswith("text/event-stream")


async def test_head_request_does_not_cancel_a_run(limited: Stack) -> None:
    started = await limited.query(agent="simulator", params={"seconds": 1}, headers={"Prefer": "respond-async"})
    run_id = started.json()["queryId"]
    await limited.http.head(f"/api/agent/runs/{run_id}/stream?onDisconnect=cancel")
    assert (await limited.run_until(run_id, "completed", "failed", "cancelled"))["status"] == "completed"


async def test_405_lists_the_allowed_methods(limited: Stack) -> None:
    for method, path, allowed in (
        ("PATCH", "/api/agent/query", "POST"),
        ("DELETE", "/api/agent/runs", "GET, HEAD"),
        ("PATCH", "/api/agent/subscriptions/x", "DELETE, GET, HEAD, PUT"),
        ("POST", "/health/live", "GET, HEAD"),
    ):
        answer = await limited.http.request(method, path)
        assert answer.status_code == 405
        assert answer.headers["Allow"] == allowed


async def test_trailing_slash_is_not_found(limited: Stack) -> None:
    for path in ("/api/agent/runs/", "/health/live/"):
        answer = await limited.http.get(path, follow_redirects=False)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


async def test_compressed_request_body_is_refused(limited: Stack) -> None:
    answer = await limited.http.post(
        "/api/agent/query",
        content=b"\x1f\x8b",
        headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
    )
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["detail"]


async def test_connection_stays_usable_after_a_refused_body(limited: Stack) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", limited.settings.port)
    writer.write(post(b"x" * 5_000_000, 11_000_000))
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413 ")
    writer.write(b"x" * 6_000_000 + GET)
    await writer.drain()
    async with asyncio.timeout(5):
        answers = b""
        while b'{"status":"ok"}' not in answers:
            answers += (piece := await reader.read(65_536))
            assert piece, answers
    writer.close()


async def test_connections_beyond_the_limit_are_refused(limited: Stack) -> None:
    """Idle connections make room. While all are busy, new ones get an error and /health still answers."""
    idle = [await asyncio.open_connection("127.0.0.1", limited.settings.port) for _ in range(30)]
    for reader, writer in idle:
        writer.write(GET)
        await reader.readuntil(b'{"status":"ok"}')
    assert (await limited.http.get("/api/agent/agents")).status_code == 200, "an idle one made room"
    for _, writer in idle:
        writer.close()
    params = {"seconds": 4}
    async with http_client(limited.settings.port) as http:
        body = {"query": "hi", "agent": "simulator", "params": params}
        busy = [asyncio.create_task(http.post("/api/agent/query", json=body)) for _ in range(40)]
        await until(lambda: any(one.done() for one in busy))
        answer = await exchange(limited, GET.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close"))
        assert answer.startswith(b"HTTP/1.1 200 ")
        answers = await asyncio.gather(*busy, return_exceptions=True)
    statuses: list[Any] = [getattr(one, "status_code", type(one).__name__) for one in answers]
    assert set(statuses) == {200, 503}
    refused = next(one for one in answers if getattr(one, "status_code", 0) == 503)
    assert refused.json()["type"] == "/problems/too-many-connections"  # type: ignore[union-attr]
    assert (await limited.query()).status_code == 200


async def test_process_out_of_file_descriptors_keeps_serving(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, head_seconds=2)
    script = tmp_path / "few_descriptors.py"
    script.write_text(
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from sevenfold.cli.main import main\n"
        "sys.argv = ['sevenfold', 'dev']\n"
        "main()\n"
    )
    with sevenfold(str(script), settings) as product:
        await until_ready(settings.port, process=product)
        connections = [await asyncio.open_connection("127.0.0.1", settings.port) for _ in range(600)]
        async with http_client(settings.port) as http:
            await until(lambda: _is_live(http), 20)
            for _, writer in connections:
                writer.close()
            await asyncio.sleep(3)
            assert (await http.post("/api/agent/query", json={"query": "hi"})).status_code == 200
        assert product.output().count("Too many open files") < 50


async def _is_live(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health/live")).status_code == 200
    except httpx.TransportError:
        return False
