"""How the keys of an OpenID Connect issuer are fetched, cached and rotated, and what its outages cost."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from sevenfold.adapters.access.issuer_keys import issuer_client
from sevenfold.adapters.access.oidc import InvalidTokenError, IssuerUnavailableError, KeyTimes, OidcVerifier
from sevenfold.contracts.config.access import OidcConfig
from tests.support.oidc_issuer import AUDIENCE, DISCOVERY, JWKS, Issuer, running_issuer
from tests.support.processes import until

_BOTH = [DISCOVERY, JWKS]
_QUICK = KeyTimes(pause=0.3, first_pause=0.1, timeout=1.0)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@asynccontextmanager
async def _verifier(issuer: Issuer, times: KeyTimes = _QUICK) -> AsyncIterator[OidcVerifier]:
    async with issuer_client() as http:
        verifier = OidcVerifier(OidcConfig(issuer=issuer.url, audience=AUDIENCE), http, times=times)
        yield verifier
        await verifier.aclose()


async def test_nothing_is_fetched_before_the_first_token_and_then_once_for_all(issuer: Issuer):
    issuer.delay_seconds = 0.1
    async with _verifier(issuer, KeyTimes()) as verifier:
        await asyncio.sleep(0.05)
        assert issuer.requests == []
        tokens = [issuer.token(sub=f"s{i}") for i in range(50)]
        principals = await asyncio.gather(*(verifier.verify(token) for token in tokens))
        assert {p.key_id for p in principals} == {f"oidc:s{i}" for i in range(50)}
        assert issuer.requests == _BOTH


async def test_a_caller_that_gives_up_does_not_cancel_the_fetch_of_others(issuer: Issuer):
    issuer.delay_seconds = 0.2
    async with _verifier(issuer) as verifier:
        first = asyncio.create_task(verifier.verify(issuer.token()))
        second = asyncio.create_task(verifier.verify(issuer.token()))
        await asyncio.sleep(0.1)
        first.cancel()
        assert (await second).tenant == "acme"
        assert issuer.requests == _BOTH


async def test_a_rotated_key_is_fetched_at_its_first_token(issuer: Issuer):
    async with _verifier(issuer) as verifier:
        old = issuer.token()
        await verifier.verify(old)
        issuer.rotate("second")
        await asyncio.sleep(_QUICK.pause)
        assert (await verifier.verify(issuer.token("second"))).tenant == "acme"
        assert issuer.requests == _BOTH * 2
        with pytest.raises(InvalidTokenError, match="key that the issuer publishes"):
            await verifier.verify(old)


async def test_unknown_keys_cause_one_fetch_per_pause(issuer: Issuer):
    async with _verifier(issuer) as verifier:
        await verifier.verify(issuer.token())
        for _ in range(2):
            await asyncio.sleep(_QUICK.pause)
            before = len(issuer.requests)
            forged = [issuer.token(header={"kid": f"unknown-{i}"}) for i in range(100)]
            outcomes = await asyncio.gather(*map(verifier.verify, forged), return_exceptions=True)
            assert all(isinstance(outcome, InvalidTokenError) for outcome in outcomes)
            assert issuer.requests[before:] == _BOTH


async def test_known_keys_do_not_wait_for_the_fetch_of_an_unknown_one(issuer: Issuer):
    async with _verifier(issuer) as verifier:
        await verifier.verify(issuer.token())
        issuer.delay_seconds = 0.4
        await asyncio.sleep(_QUICK.pause)
        unknown = asyncio.create_task(verifier.verify(issuer.token(header={"kid": "unknown"})))
        await asyncio.sleep(0.05)
        start = time.monotonic()
        await verifier.verify(issuer.token())
        assert time.monotonic() - start < 0.2
        with pytest.raises(InvalidTokenError):
            await unknown


async def test_an_issuer_that_is_down_first_is_used_once_it_is_up(issuer: Issuer):
    token = issuer.token()
    issuer.stop()
    async with _verifier(issuer) as verifier:
        for _ in range(3):
            with pytest.raises(IssuerUnavailableError):
                await verifier.verify(token)
        issuer.start()
        await asyncio.sleep(_QUICK.first_pause)
        assert (await verifier.verify(token)).tenant == "acme"


async def test_known_keys_work_while_the_issuer_is_down(issuer: Issuer):
    times = KeyTimes(refresh=0.1, pause=0.1, timeout=0.5)
    async with _verifier(issuer, times) as verifier:
        await verifier.verify(issuer.token())
        issuer.stop()
        await asyncio.sleep(0.5)  # several refreshes fail
        assert (await verifier.verify(issuer.token())).tenant == "acme"
        with pytest.raises(IssuerUnavailableError):  # it may be a new key of the issuer
            await verifier.verify(issuer.token(header={"kid": "unknown"}))
        issuer.rotate("second")
        issuer.start()
        await until(lambda: len(issuer.requests) >= 4, seconds=5)
        assert (await verifier.verify(issuer.token("second"))).tenant == "acme"


async def test_keys_are_refreshed_in_the_background(issuer: Issuer):
    async with _verifier(issuer, KeyTimes(refresh=0.2, pause=0.1)) as verifier:
        old = issuer.token()
        await verifier.verify(old)
        issuer.rotate("second")
        await until(lambda: len(issuer.requests) >= 6, seconds=5)
        with pytest.raises(InvalidTokenError):  # a key that was withdrawn, without a token that names another
            await verifier.verify(old)


async def test_a_slow_issuer_is_given_up(issuer: Issuer):
    issuer.delay_seconds = 2.0
    async with _verifier(issuer, KeyTimes(timeout=0.3)) as verifier:
        start = time.monotonic()
        with pytest.raises(IssuerUnavailableError):
            await verifier.verify(issuer.token())
        assert time.monotonic() - start < 1.5


_BOMB = gzip.compress(b'{"keys": [' + b" " * 50_000_000 + b"]}", mtime=0)


@pytest.mark.parametrize(
    ("path", "status", "body", "headers"),
    [
        (DISCOVERY, 404, b"", {}),
        (DISCOVERY, 302, b"", {"Location": "/elsewhere"}),
        (DISCOVERY, 200, b"<html>", {}),
        (DISCOVERY, 200, b"[]", {}),
        (DISCOVERY, 200, b"{}", {}),
        (DISCOVERY, 200, b"[" * 100_000, {}),
        (JWKS, 500, b"", {}),
        (JWKS, 301, b"", {"Location": "/elsewhere"}),
        (JWKS, 200, b"", {}),
        (JWKS, 200, b'{"keys": {}}', {}),
        (JWKS, 200, b'{"keys": []}', {}),
        (JWKS, 200, b'{"keys": [7, null, {"kty": "RSA"}, {"kty": "oct", "k": "AAAA"}, {"kty": ["RSA"]}]}', {}),
        (JWKS, 200, b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "OKP"}]}', {}),
        (JWKS, 200, b" " * 300_000, {}),
        (JWKS, 200, _BOMB, {"Content-Encoding": "gzip"}),
        (JWKS, 200, b"x", {"Content-Encoding": "br"}),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_broken_documents_count_as_an_outage(
    issuer: Issuer, path: str, status: int, body: bytes, headers: dict[str, str]
):
    issuer.replies[path] = (status, body, headers)
    async with _verifier(issuer) as verifier:
        with pytest.raises(IssuerUnavailableError):
            await verifier.verify(issuer.token())
        assert "/elsewhere" not in issuer.requests
        issuer.replies.clear()
        await asyncio.sleep(_QUICK.first_pause)
        assert (await verifier.verify(issuer.token())).tenant == "acme"


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example"},
        {"issuer": "http://127.0.0.1:1"},
        {"issuer": None},
        {"jwks_uri": "http://keys.invalid/keys"},
        {"jwks_uri": "http://192.0.2.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "/keys"},
        {"jwks_uri": "https://"},
        {"jwks_uri": 7},
        {"jwks_uri": "https://user:[/keys"},
    ],
    ids=str,
)
async def test_a_document_that_points_elsewhere_is_refused(issuer: Issuer, document: dict[str, object]):
    issuer.discovery = document
    async with _verifier(issuer) as verifier:
        with pytest.raises(IssuerUnavailableError):
            await verifier.verify(issuer.token())
        assert issuer.requests == [DISCOVERY]


async def test_issuer_with_a_slash_at_the_end(issuer: Issuer):
    issuer.discovery = {"issuer": issuer.url + "/"}
    async with issuer_client() as http:
        verifier = OidcVerifier(OidcConfig(issuer=issuer.url + "/", audience=AUDIENCE), http)
        assert (await verifier.verify(issuer.token(iss=issuer.url + "/"))).tenant == "acme"
        with pytest.raises(InvalidTokenError, match="another issuer"):
            await verifier.verify(issuer.token())
        await verifier.aclose()


async def test_a_token_without_kid_needs_an_issuer_with_one_key(issuer: Issuer):
    async with _verifier(issuer) as verifier:
        assert await verifier.verify(issuer.token(header={"kid": None}))
        issuer.add_key("second", "RS256")
        await asyncio.sleep(_QUICK.pause)
        assert await verifier.verify(issuer.token("second"))
        with pytest.raises(InvalidTokenError):
            await verifier.verify(issuer.token(header={"kid": None}))


async def test_private_members_in_the_key_set_are_ignored(issuer: Issuer):
    issuer.jwks[0] = {**json.loads(json.dumps(issuer.jwks[0])), "d": "AQAB", "p": "AQAB"}
    async with _verifier(issuer) as verifier:
        assert await verifier.verify(issuer.token())


async def test_the_log_names_the_reason_and_no_token(issuer: Issuer, capfd: pytest.CaptureFixture[str]):
    issuer.replies[JWKS] = (503, b"", {})
    token = issuer.token()
    async with _verifier(issuer) as verifier:
        with pytest.raises(IssuerUnavailableError) as refused:
            await verifier.verify(token)
    logged = "".join(capfd.readouterr())
    assert "answered 503" in logged
    assert token not in logged + str(refused.value)


async def test_a_client_of_ones_own_that_follows_redirects_is_not_led_away(issuer: Issuer):
    issuer.replies[DISCOVERY] = (307, b"", {"Location": "/elsewhere"})
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True) as http:
        verifier = OidcVerifier(OidcConfig(issuer=issuer.url, audience=AUDIENCE), http)
        with pytest.raises(IssuerUnavailableError):
            await verifier.verify(issuer.token())
        assert issuer.requests == [DISCOVERY]
        await verifier.aclose()
