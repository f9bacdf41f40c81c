"""Strangers' answers are read within bounds of bytes and time; documents are fetched hop by hop."""

import asyncio
import gzip
import os
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sevenfold.adapters.outbound.bounded import FetchError, TooLargeError, fetch, read_at_most, read_prefix
from sevenfold.adapters.outbound.guarded_http import guarded_client
from tests.support.outbound_peers import (
    Behaviour,
    Resolver,
    answers,
    bombs,
    drips,
    peer,
    pours,
    redirects,
    resets,
    tls_for,
)

HUGE = 100 * 1024 * 1024
# Far more than the buffers of a connection hold.
MUCH = 30 * 1024 * 1024

SECRET = "sesame"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with guarded_client(allow_loopback=True, timeout=120) as client:
        yield client


async def refused(client: httpx.AsyncClient, url: str, *, seconds: float = 10, **options: object) -> FetchError:
    """How the fetching of a document from a URL full of secrets fails."""
    with pytest.raises(FetchError) as failure:
        await fetch(
            client,
            f"{url}/{SECRET}?token={SECRET}#{SECRET}",
            **{"limit": 1000, "seconds": seconds, "allow_loopback": True, **options},  # type: ignore[arg-type]
        )
    assert SECRET not in str(failure.value)
    assert failure.value.__cause__ is None
    assert str(failure.value).endswith(".")
    return failure.value


async def test_body_is_read_up_to_the_limit(client: httpx.AsyncClient) -> None:
    async with peer(answers(b"x" * 1000)) as host:
        async with client.stream("GET", host.url) as response:
            assert await read_at_most(response, 1000) == b"x" * 1000
        async with client.stream("GET", host.url) as response:
            with pytest.raises(TooLargeError):
                await read_at_most(response, 999)


async def test_empty_body_is_read(client: httpx.AsyncClient) -> None:
    async with peer(answers(b"", "Content-Encoding: gzip")) as host:
        async with client.stream("GET", host.url) as response:
            assert await read_at_most(response, 0) == b""
        async with client.stream("GET", host.url) as response:
            assert await read_prefix(response, 10) == b""


async def test_gzip_body_counts_decompressed(client: httpx.AsyncClient) -> None:
    async with peer(answers(gzip.compress(b"x" * 100_000), "Content-Encoding: gzip")) as host:
        async with client.stream("GET", host.url) as response:
            assert await read_at_most(response, 100_000) == b"x" * 100_000
        async with client.stream("GET", host.url) as response:
            with pytest.raises(TooLargeError):
                await read_at_most(response, 99_999)
        async with client.stream("GET", host.url) as response:
            assert await read_prefix(response, 10) == b"x" * 10
        assert "Accept-Encoding: gzip\r\n" in host.heads[0]


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"not packed", "gzip"),
        (gzip.compress(b"x" * 1000)[:-9], "gzip"),
        (gzip.compress(b"a whole") + gzip.compress(b" and more"), "gzip"),
        (b"x", "br"),
        (b"x", "gzip, gzip"),
    ],
    ids=range(5),  # gzip writes the time into its head, and test runners compare names
)
async def test_undecodable_body_is_refused(client: httpx.AsyncClient, body: bytes, coding: str) -> None:
    async with peer(answers(body, f"Content-Encoding: {coding}")) as host:
        async with client.stream("GET", host.url) as response:
            with pytest.raises(httpx.DecodingError):
                await read_at_most(response, 10_000)
        assert "gzip" in str(await refused(client, host.url))
        async with client.stream("GET", host.url) as response:
            assert len(await read_prefix(response, 10)) <= 10


@pytest.mark.parametrize("layers", [1, 2])
async def test_compression_bomb_is_not_expanded(client: httpx.AsyncClient, layers: int) -> None:
    async with peer(bombs(layers)) as host:
        tracemalloc.start()
        try:
            async with client.stream("GET", host.url) as response:
                with pytest.raises((TooLargeError, httpx.DecodingError)):
                    await read_at_most(response, 1_000_000)
            async with client.stream("GET", host.url) as response:
                assert len(await read_prefix(response, 1000)) in (0, 1000)
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()


async def test_endless_compressed_nothing_ends(client: httpx.AsyncClient) -> None:
    # empty blocks, of which gzip may hold any number
    header, blocks = gzip.compress(b"")[:10], b"\x00\x00\x00\xff\xff" * 10_000
    async with peer(pours(HUGE, "Content-Encoding: gzip", once=header, piece=blocks)) as host:
        async with client.stream("GET", host.url) as response:
            assert await read_prefix(response, 10) == b""
        assert "larger" in str(await refused(client, host.url))
    assert host.sent < MUCH


async def test_announced_length_over_the_limit_is_refused_at_once(client: httpx.AsyncClient) -> None:
    async with peer(drips()) as host:
        assert "larger than 1000 bytes" in str(await refused(client, host.url))


@pytest.mark.parametrize("announced", [True, False])
async def test_only_a_prefix_of_a_huge_answer_is_read(client: httpx.AsyncClient, announced: bool) -> None:
    async with peer(pours(HUGE, announced=announced)) as host:
        async with client.stream("POST", host.url) as response:
            assert await read_prefix(response, 5000) == bytes(5000)
            assert response.is_closed
        assert not (await refused(client, host.url)).temporary
    assert host.sent < MUCH


async def test_short_answer_is_read_whole_and_keeps_the_connection(client: httpx.AsyncClient) -> None:
    async with peer(answers(b"short")) as host:
        for _ in range(2):
            async with client.stream("POST", host.url) as response:
                assert await read_prefix(response, 5000) == b"short"
        assert host.connections == 1


@pytest.mark.parametrize("behaviour", [drips(), drips(head=True)])
async def test_dripping_answer_is_bounded_in_total_time(behaviour: Behaviour) -> None:
    async with peer(behaviour) as host, guarded_client(allow_loopback=True, timeout=0.5) as client:
        began = time.monotonic()
        with pytest.raises(httpx.TimeoutException):
            await client.post(host.url)
        with pytest.raises(httpx.TimeoutException):
            async with client.stream("POST", host.url) as response:
                await read_prefix(response, 5000)
        assert time.monotonic() - began < 60


@pytest.mark.parametrize("behaviour", [drips(), drips(head=True)])
async def test_dripping_document_is_too_slow(client: httpx.AsyncClient, behaviour: Behaviour) -> None:
    async with peer(behaviour) as host:
        began = time.monotonic()
        failure = await refused(client, host.url, seconds=0.5, limit=10**7)
        assert time.monotonic() - began < 60  # the client's own bound is 120
        assert "timed out" in str(failure)
        assert failure.temporary


async def test_hanging_resolver_is_bounded() -> None:
    async def hangs(host: str, port: int) -> list[object]:
        await asyncio.sleep(60)
        return []

    async with guarded_client(allow_loopback=True, timeout=0.2, resolve=hangs) as client:  # type: ignore[arg-type]
        with pytest.raises(httpx.TimeoutException):
            await client.post("http://hooks.localhost:9/")


async def test_pauses_of_the_reader_do_not_truncate() -> None:
    """The time limit passes during the pause; the next read raises, the pause itself does not."""
    async with (
        peer(drips()) as host,
        guarded_client(allow_loopback=True, timeout=4) as hasty,
        hasty.stream("GET", host.url) as response,
    ):
        pieces = response.aiter_raw()
        await anext(pieces)
        await asyncio.sleep(4.2)
        with pytest.raises(httpx.ReadTimeout):
            assert [piece async for piece in pieces]


async def test_document_is_downloaded_with_its_type(client: httpx.AsyncClient) -> None:
    async with (
        peer(answers(b"%PDF", "Content-Type: application/pdf")) as host,
        peer(redirects(b"/there?x=1")) as away,
    ):
        found = await fetch(client, f"{host.url}/a?b=c", limit=4, seconds=10, allow_loopback=True)
        assert (found.data, found.content_type, found.url) == (b"%PDF", "application/pdf", f"{host.url}/a?b=c")
        assert "redirects more often than allowed (3)" in str(await refused(client, away.url))
        assert len(away.heads) == 4


async def test_document_redirects_are_followed(client: httpx.AsyncClient) -> None:
    async with (
        peer(answers(b"there")) as host,
        peer(redirects(f"{host.url}/a b".encode(), 307)) as one,
        peer(redirects(one.url.encode())) as two,
    ):
        found = await fetch(client, two.url, limit=10, seconds=10, allow_loopback=True)
        assert (found.data, found.content_type, found.url) == (b"there", "", f"{host.url}/a%20b")
        assert "more often than allowed (1)" in str(await refused(client, two.url, hops=1))
        assert host.connections == 1


@pytest.mark.parametrize(
    "to",
    [
        *(b"http://169.254.169.254/latest/meta-data/", b"http://10.0.0.1/", b"http://[fd00:ec2::254]/", b"http://0/"),
        *(
            b"https://user:sesame@example.com/",
            b"file:///etc/passwd",
            b"http://example.com:6379/",
            b"//[x",
            b"https:",
        ),
        *(b"https://xn--99999999999/", b"http://2130706433/", b"gopher://example.com/", b"http://exa\x7fmple.com/"),
    ],
)
async def test_every_redirect_target_is_checked(client: httpx.AsyncClient, to: bytes) -> None:
    async with peer(redirects(to)) as host:
        assert not (await refused(client, host.url)).temporary
        assert len(host.heads) == 1


async def test_redirect_from_a_public_host_to_loopback_is_refused(tmp_path: Path) -> None:
    """The client may connect here, so that a public name can be played; `fetch` may not."""
    tls = tls_for("files.example.com", tmp_path)
    # whose port 443 no other run of these tests has
    address = f"127.77.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
    async with guarded_client(
        allow_loopback=True, timeout=10, resolve=Resolver([[address]]), ssl_context=tls.client
    ) as client:
        try:
            async with peer(redirects(b"https://127.0.0.1/"), host=address, port=443, tls=tls.server) as public:
                failure = await refused(client, "https://files.example.com", allow_loopback=False)
                assert "not on the public internet" in str(failure)
                assert len(public.heads) == 1
        except PermissionError:
            pytest.skip("only root may listen at port 443 here")


@pytest.mark.parametrize(
    ("status", "temporary"),
    [(204, None), (304, False), (401, False), (404, False), (410, False), (429, True), (503, True)],
)
async def test_document_status_maps_to_an_error(
    client: httpx.AsyncClient, status: int, temporary: bool | None
) -> None:
    async with peer(answers(b"", status=status)) as host:
        if temporary is None:
            assert (await fetch(client, host.url, limit=9, seconds=10, allow_loopback=True)).data == b""
        else:
            failure = await refused(client, host.url)
            assert f"127.0.0.1 answered {status}" in str(failure)
            assert failure.temporary is temporary


async def test_download_failures_are_temporary(client: httpx.AsyncClient) -> None:
    async with peer(resets(after=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")) as host:
        assert (await refused(client, host.url)).temporary
    assert "connection" in str(await refused(client, host.url))
    assert "https" in str(await refused(client, "ftp://example.com"))
    async with guarded_client(allow_loopback=True, timeout=5, resolve=Resolver([[]])) as lost:
        assert "could not be resolved" in str(await refused(lost, "https://files.example.com"))
    async with guarded_client(allow_loopback=True, timeout=5, resolve=Resolver([["10.0.0.1"]])) as inside:
        assert "not on the public internet" in str(await refused(inside, "https://files.example.com"))
