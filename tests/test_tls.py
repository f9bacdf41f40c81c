"""The API over TLS: all kinds of answers, handshakes that never end, and certificates that cannot be used."""

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from bench.ports import free_port
from bench.server_sent_events import events
from sevenfold.api.app import create_app
from sevenfold.api.components import build_components
from sevenfold.runtime.config.settings import Settings, load_settings
from sevenfold.runtime.process.ports import bind
from sevenfold.runtime.secrets.tls import load_tls
from sevenfold.runtime.services import build_services
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.streams import open_streams
from tests.support.certificates import Certificate, make_certificate
from tests.support.fork_server import run_sevenfold
from tests.support.stack import Stack, environment, make_settings, served, sevenfold
from tests.test_startup import refused

_CAP = 30
_HEAD_SECONDS = 1.0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@asynccontextmanager
async def _tls_api(stack: Stack, certificate: Certificate) -> AsyncIterator[httpx.AsyncClient]:
    changes = {
        "port": free_port(),
        "tls_cert": certificate.cert,
        "tls_key": certificate.key,
        "head_seconds": _HEAD_SECONDS,
        "max_connections": _CAP,
    }
    settings = stack.settings.model_copy(update=changes)
    async with AsyncExitStack() as running:
        sock = running.enter_context(bind(settings.host, settings.port, "SEVENFOLD_PORT"))
        services = build_services(settings, stack.config, stack.temporal)
        streams = await running.enter_async_context(open_streams(services, has_local_worker=False))
        app = create_app(build_components(services, streams))
        await running.enter_async_context(served(app, sock, settings))
        yield await running.enter_async_context(
            httpx.AsyncClient(base_url=settings.base_url, verify=certificate.client, trust_env=False, timeout=30)
        )


@pytest.fixture(scope="module")
async def https(stack: Stack, certificate: Certificate) -> AsyncIterator[httpx.AsyncClient]:
    async with _tls_api(stack, certificate) as http:
        yield http


def _port(https: httpx.AsyncClient) -> int:
    assert https.base_url.scheme == "https"
    return https.base_url.port or 0


async def test_query_over_tls(https: httpx.AsyncClient) -> None:
    for _ in range(3):  # the second uses the connection of the first
        answer = await https.post("/api/agent/query", json={"query": "hi", "agent": "echo"})
        assert answer.status_code == 200, answer.text
    gateway = (await https.get("/asyncapi.json")).json()["servers"]["gateway"]
    assert gateway["protocol"] == "https"


async def test_large_bodies_pass_both_ways(https: httpx.AsyncClient) -> None:
    text = "x" * 300_000
    answer = await https.post("/api/agent/query", json={"query": text, "agent": "echo"})
    assert text in answer.text


async def test_stream_over_tls_arrives_piece_by_piece(https: httpx.AsyncClient) -> None:
    body = {"query": "hi", "agent": "teller", "params": {"say": ["one ", "two ", "three"], "pause": 0.3}}
    arrivals: list[float] = []
    async with https.stream("POST", "/api/agent/stream", json=body) as answer:
        async for event in events(answer):
            if event.is_chunk:
                arrivals.append(time.monotonic())
    assert len(arrivals) >= 3
    assert arrivals[-1] - arrivals[0] > 0.4


async def test_websocket_over_tls(https: httpx.AsyncClient, certificate: Certificate) -> None:
    url = f"wss://127.0.0.1:{_port(https)}/api/agent/stream/ws"
    async with connect(url, ssl=certificate.client, proxy=None) as opened, asyncio.timeout(20):
        await opened.send(json.dumps({"query": "hi", "agent": "teller", "params": {"say": ["one ", "two"]}}))
        messages = [json.loads(message) async for message in opened]
    assert [message["chunk"] for message in messages[1:]] == ["one ", "two", ""]


@pytest.mark.parametrize(("version", "accepted"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_1_2_is_the_oldest_version(
    https: httpx.AsyncClient, certificate: Certificate, version: str, accepted: bool
) -> None:
    context = certificate.client
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", _port(https), ssl=context)
    except (ssl.SSLError, ConnectionError):
        assert not accepted
        return
    writer.close()
    assert accepted


async def test_request_in_the_packet_that_ends_the_handshake_is_answered(
    https: httpx.AsyncClient, certificate: Certificate
) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certificate.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", _port(https))
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(65_536))
    tls.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    writer.write(outgoing.read())
    answer = b""
    async with asyncio.timeout(5):
        while b"ok" not in answer:
            incoming.write(await reader.read(65_536))
            with suppress(ssl.SSLWantReadError):
                while piece := tls.read(65_536):  # one record at a time
                    answer += piece
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


async def _closed_after(port: int, *pieces: bytes, pause: float = 0.0) -> float:
    """Seconds until the server closes a connection that sends these bytes."""
    started_at = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError):
        async with asyncio.timeout(10):
            reading = asyncio.create_task(reader.read())
            for piece in pieces:
                if reading.done():
                    break
                writer.write(piece)
                await asyncio.sleep(pause)
            await reading
    writer.close()
    return time.monotonic() - started_at


async def test_plain_http_on_the_tls_port_is_closed_at_once(https: httpx.AsyncClient) -> None:
    assert await _closed_after(_port(https), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") < 0.5


async def test_handshakes_that_do_not_end_are_closed(https: httpx.AsyncClient) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100
    for pieces in ((), (hello,), tuple(hello[at : at + 1] for at in range(50))):
        assert 0.8 < await _closed_after(_port(https), *pieces, pause=0.1) < 3


async def test_limits_on_requests_hold_over_tls(https: httpx.AsyncClient, certificate: Certificate) -> None:
    async def answer_to(sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", _port(https), ssl=certificate.client)
        writer.write(sent)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer

    assert await answer_to(b"") == b""
    assert (await answer_to(b"GET / HTTP/1.1\r\nHo")).startswith(b"HTTP/1.1 408 ")
    assert (await answer_to(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)).startswith(b"HTTP/1.1 431 ")


async def test_a_flood_of_handshakes_locks_nobody_out(https: httpx.AsyncClient) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", _port(https)) for _ in range(10 * _CAP)]
    answer = await https.get("/health/live")
    assert answer.status_code == 200
    await asyncio.sleep(0.1)
    still_open = sum(not reader.at_eof() for reader, _ in silent)
    assert still_open <= _CAP
    for _, writer in silent:
        writer.close()


async def test_a_stop_does_not_wait_for_handshakes(stack: Stack, certificate: Certificate) -> None:
    async with _tls_api(stack, certificate) as https:
        reader, writer = await asyncio.open_connection("127.0.0.1", _port(https))
        await https.get("/health/live")
        started_at = time.monotonic()
    assert time.monotonic() - started_at < _HEAD_SECONDS
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()


async def test_dev_prints_and_serves_https(tmp_path: Path, certificate: Certificate) -> None:
    settings = make_settings(tmp_path, tls_cert=certificate.cert, tls_key=certificate.key)
    with sevenfold("dev", settings) as process:
        async with asyncio.timeout(60), httpx.AsyncClient(verify=certificate.client, trust_env=False) as http:
            while "is ready" not in process.output():
                assert process.process.poll() is None, process.output()
                await asyncio.sleep(0.1)
            while (await http.get(f"{settings.base_url}/health/ready")).status_code != 200:
                await asyncio.sleep(0.1)
        assert f"https://127.0.0.1:{settings.port}/docs" in process.output()
        asked = await asyncio.to_thread(_stats, settings.base_url, certificate)
        assert asked.returncode == 0, asked.stderr
        assert process.terminate() == 0


def _stats(url: str, certificate: Certificate) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SSL_CERT_FILE": str(certificate.cert)}
    return run_sevenfold("stats", "--once", "--url", url, env=environ)


# Certificates that cannot be used


def _encrypted(made: Certificate) -> None:
    make_certificate(made.cert.parent, passphrase="open sesame")


def _of_another(made: Certificate) -> None:
    made.key.write_bytes(make_certificate(made.cert.parent / "other").key.read_bytes())


_MISTAKES: dict[str, tuple[Callable[[Certificate], object], str]] = {
    "certificate missing": (lambda made: made.cert.unlink(), r"TLS_CERT=\S+ cannot be read: No such file"),
    "key missing": (lambda made: made.key.unlink(), r"TLS_KEY=\S+ cannot be read: No such file"),
    "a directory": (lambda made: (made.key.unlink(), made.key.mkdir()), r"TLS_KEY=\S+ cannot be read: Is a dir"),
    "no certificate": (lambda made: made.cert.write_text("x"), r"TLS_CERT=\S+ contains no certificate"),
    "damaged certificate": (
        lambda made: made.cert.write_text(made.cert.read_text()[:100]),
        r"TLS_CERT=\S+ contains no certificate",
    ),
    "no key": (lambda made: made.key.write_text("x"), r"has to be a private key in PEM form"),
    "swapped": (lambda made: made.key.write_bytes(made.cert.read_bytes()), r"has to be a private key in PEM form"),
    "another key": (_of_another, r"TLS_KEY=\S+ is not the key of the first certificate in SEVENFOLD_TLS_CERT"),
    "encrypted": (_encrypted, r"TLS_KEY=\S+ is encrypted[\s\S]*openssl pkey"),
    "readable by all": (lambda made: made.key.chmod(0o644), r"mode 644[\s\S]*chmod 600"),
}


@pytest.mark.parametrize("mistake", _MISTAKES)
def test_unusable_certificates_are_explained(tmp_path: Path, mistake: str) -> None:
    made = make_certificate(tmp_path / "tls")
    spoil, message = _MISTAKES[mistake]
    spoil(made)
    with pytest.raises(StartupError) as failed:
        load_tls(Settings(tls_cert=made.cert, tls_key=made.key))
    assert re.search(message, str(failed.value)), failed.value


@pytest.mark.parametrize("variable", ["tls_cert", "tls_key"])
def test_one_of_the_two_settings_is_not_enough(tmp_path: Path, variable: str) -> None:
    made = make_certificate(tmp_path / "tls")
    with pytest.raises(StartupError, match="Set both"):
        load_tls(Settings(**{variable: getattr(made, variable.removeprefix("tls_"))}))


def test_a_key_of_root_may_be_readable_by_a_group(tmp_path: Path) -> None:
    made = make_certificate(tmp_path / "tls")
    if made.key.stat().st_uid != 0:
        pytest.skip("needs root")
    made.key.chmod(0o640)
    assert load_tls(Settings(tls_cert=made.cert, tls_key=made.key))


def test_empty_settings_mean_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEVENFOLD_TLS_CERT", "")
    monkeypatch.setenv("SEVENFOLD_TLS_KEY", " ")
    settings = load_settings()
    assert load_tls(settings) is None
    assert settings.base_url.startswith("http://")


def test_a_mistake_is_reported_before_anything_starts(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, tls_cert=tmp_path / "none.crt", tls_key=tmp_path / "none.key")
    assert "SEVENFOLD_TLS_CERT" in refused("dev", environment(settings), tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", settings.temporal_port))
