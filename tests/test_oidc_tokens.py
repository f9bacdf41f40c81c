"""Which access tokens of an OpenID Connect issuer are accepted, and as whom. The issuer is real, on loopback."""

import hmac
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sevenfold.adapters.access.oidc import InvalidTokenError, OidcVerifier
from sevenfold.contracts.access.principals import Principal, Scope
from sevenfold.contracts.config.access import OidcConfig
from tests.support.oidc_issuer import AUDIENCE, Issuer, encode, make_key, running_issuer, sign

LEEWAY = 5
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed448")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        for algorithm in ALGORITHMS:
            running.add_key(algorithm, algorithm)
        yield running


@pytest.fixture(scope="module")
async def verifier(issuer: Issuer) -> AsyncIterator[OidcVerifier]:
    verifying = OidcVerifier(
        OidcConfig(issuer=issuer.url, audience=AUDIENCE, leeway_seconds=LEEWAY), httpx.AsyncClient(trust_env=False)
    )
    yield verifying
    await verifying.aclose()


async def _refusal(verifier: OidcVerifier, token: str) -> str:
    with pytest.raises(InvalidTokenError) as refused:
        await verifier.verify(token)
    return str(refused.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_each_algorithm_is_accepted(issuer: Issuer, verifier: OidcVerifier, algorithm: str):
    expires = int(time.time()) + 60
    assert await verifier.verify(issuer.token(algorithm, exp=expires)) == Principal(
        "acme",
        frozenset({Scope.RUNS_WRITE, Scope.RUNS_READ}),
        key_id="oidc:service-7",
        expires_at=datetime.fromtimestamp(expires + LEEWAY, UTC),
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": -6}, "expired"),
        ({"nbf": 30}, "not valid yet"),
        ({"iat": 30}, "not valid yet"),
    ],
)
async def test_times_count_with_a_bounded_leeway(issuer: Issuer, verifier: OidcVerifier, changes: Any, reason: str):
    ((name, seconds),) = changes.items()
    now = int(time.time())
    assert reason in await _refusal(verifier, issuer.token(**{name: now + seconds}))
    within = now - 2 if name == "exp" else now + 3
    assert (await verifier.verify(issuer.token(**{name: within}))).tenant == "acme"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": ["x"]}, "another issuer"),
        ({"iss": None}, "lacks"),
        ({"aud": "other"}, "another audience"),
        ({"aud": ["other", "more"]}, "another audience"),
        ({"aud": {"sevenfold-api": 1}}, "another audience"),
        ({"aud": [AUDIENCE, 7]}, "another audience"),
        ({"aud": []}, "lacks"),
        ({"aud": None}, "lacks"),
        ({"exp": None}, "lacks"),
        ({"sub": None}, "lacks"),
        ({"sub": 7}, "not a valid"),
        ({"exp": "9999999999"}, "numbers"),
        ({"exp": [1]}, "not a valid"),
        ({"exp": float("inf")}, "not a valid"),
        ({"exp": float("nan")}, "not a valid"),
        ({"exp": 10**30}, "too far"),
        ({"exp": 1e300}, "too far"),
        ({"nbf": "0"}, "numbers"),
        ({"iat": True}, "numbers"),
        ({"iat": {}}, "not a valid"),
        ({"tenant": None}, "lacks the claim tenant"),
        ({"tenant": 7}, "not a tenant's name"),
        ({"tenant": ["acme"]}, "not a tenant's name"),
        ({"tenant": "Acme:x"}, "not a tenant's name"),
        ({"tenant": "circuit"}, "not a tenant's name"),
        ({"tenant": ""}, "not a tenant's name"),
        ({"scope": 7}, "neither a list"),
        ({"scope": {"runs:read": True}}, "neither a list"),
        ({"scope": ["runs:read", 7]}, "neither a list"),
    ],
)
async def test_wrong_claims_are_refused(issuer: Issuer, verifier: OidcVerifier, changes: Any, reason: str):
    assert reason in await _refusal(verifier, issuer.token(**changes))


async def test_messages_contain_nothing_of_the_token(issuer: Issuer, verifier: OidcVerifier):
    for name in ("iss", "aud", "exp", "nbf", "iat"):
        assert "secret" not in await _refusal(verifier, issuer.token(**{name: "secret", "sub": "secret"}))
    for kind in ("typ", "alg", "kid", "cty"):
        token = issuer.token(tenant="Secret!", header={kind: f"secret-{kind}"})
        assert "secret" not in (await _refusal(verifier, token)).lower()


async def test_audience_may_be_a_list(issuer: Issuer, verifier: OidcVerifier):
    assert (await verifier.verify(issuer.token(aud=["other", AUDIENCE]))).tenant == "acme"


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        (["runs:read", "unknown", "admin"], {Scope.RUNS_READ, Scope.ADMIN}),
        ("  runs:read   openid ", {Scope.RUNS_READ}),
        ("", set()),
        ([], set()),
        (None, set()),
    ],
)
async def test_scopes_are_a_list_or_a_string_and_unknown_ones_are_ignored(
    issuer: Issuer, verifier: OidcVerifier, value: object, scopes: set[Scope]
):
    assert (await verifier.verify(issuer.token(scope=value))).scopes == scopes


@pytest.mark.parametrize(
    ("claim", "claims", "accepted"),
    [
        ("app.tenant", {"app": {"tenant": "deep"}}, True),
        ("a.b.c", {"a": {"b": {"c": "deep"}}}, True),
        ("https://example.com/tenant", {"https://example.com/tenant": "deep"}, True),
        ("app.tenant", {"app.tenant": "deep", "app": {"tenant": "other"}}, True),
        ("app.tenant", {"app": "deep"}, False),
        ("app.tenant", {"app": ["tenant"]}, False),
        ("app.tenant", {"app": {}}, False),
    ],
)
async def test_dots_lead_into_nested_claims(issuer: Issuer, claim: str, claims: dict[str, object], accepted: bool):
    config = OidcConfig(issuer=issuer.url, audience=AUDIENCE, tenant_claim=claim, scopes_claim="realm.roles")
    verifier = OidcVerifier(config, httpx.AsyncClient(trust_env=False))
    token = issuer.token(tenant=None, realm={"roles": ["runs:read"]}, **claims)
    if accepted:
        principal = await verifier.verify(token)
        assert (principal.tenant, principal.scopes) == ("deep", {Scope.RUNS_READ})
    else:
        assert f"lacks the claim {claim}" in await _refusal(verifier, token)
    await verifier.aclose()


@pytest.mark.parametrize("subject", ["x" * 129, "line\nbreak", "\u202eevil", "\ud800", "a b", "", "sha256-00"])
async def test_odd_subjects_are_hashed_and_stay_distinct(issuer: Issuer, verifier: OidcVerifier, subject: str):
    key_id = (await verifier.verify(issuer.token(sub=subject))).key_id
    assert key_id is not None
    assert key_id.startswith("oidc:sha256-")
    assert len(key_id) == len("oidc:sha256-") + 64
    assert (await verifier.verify(issuer.token(sub=subject + "x" * 130))).key_id != key_id


async def test_auth0_like_subjects_stay_readable(issuer: Issuer, verifier: OidcVerifier):
    assert (await verifier.verify(issuer.token(sub="auth0|507f@clients"))).key_id == "oidc:auth0|507f@clients"


async def test_alg_none_and_symmetric_algorithms_are_refused(issuer: Issuer, verifier: OidcVerifier):
    claims = encode(issuer.claims())
    for name in ("none", "None", "NONE", "nOnE"):
        header = encode({"alg": name, "kid": "first"})
        assert "not a valid signed JWT" in await _refusal(verifier, f"{header}.{claims}.")
        assert "algorithm is not accepted" in await _refusal(verifier, f"{header}.{claims}.AAAA")

    public = issuer.keys["first"][1].public_key()
    for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
        for encoding in (Encoding.PEM, Encoding.DER):
            head = encode(b'{"alg":"HS256","kid":"first"}')
            signature = hmac.digest(public.public_bytes(encoding, form), f"{head}.{claims}".encode(), "sha256")
            assert "algorithm is not accepted" in await _refusal(verifier, f"{head}.{claims}.{encode(signature)}")


async def test_a_key_serves_its_own_algorithms_only(issuer: Issuer, verifier: OidcVerifier):
    """RFC 7518: ES256 is P-256. A token that names another algorithm than its key's is refused."""
    assert "key that the issuer publishes" in await _refusal(verifier, issuer.token("RS256", header={"kid": "ES256"}))
    assert "key that the issuer publishes" in await _refusal(verifier, issuer.token("ES256", header={"kid": "ES384"}))


async def test_a_key_with_an_algorithm_of_its_own_serves_no_other():
    with running_issuer() as issuer:
        issuer.add_key("pinned", "RS256", alg="RS256")
        issuer.add_key("encrypts", "RS256", use="enc")
        issuer.add_key("wraps", "RS256", key_ops=["wrapKey"])
        issuer.add_key("weak", "RS256", make_key("RS256", rsa_bits=1024))
        issuer.add_key("pinned-2", "RS256", alg="RS256")
        verifier = OidcVerifier(OidcConfig(issuer=issuer.url, audience=AUDIENCE), httpx.AsyncClient(trust_env=False))
        assert await verifier.verify(issuer.token("pinned-2"))
        assert "key that" in await _refusal(verifier, issuer.token("pinned-2", algorithm="PS256"))
        for kid in ("encrypts", "wraps", "weak"):
            assert "key that" in await _refusal(verifier, issuer.token(kid))
        await verifier.aclose()


async def test_signatures_by_others_are_refused(issuer: Issuer, verifier: OidcVerifier):
    stranger = make_key("RS256")
    forged = sign(issuer.claims(), stranger, "RS256", {"kid": "first"})
    assert "signature is wrong" in await _refusal(verifier, forged)

    embedded = sign(
        issuer.claims(), stranger, "RS256", {"kid": "first", "jwk": {"kty": "RSA"}, "jku": "http://127.0.0.1:9/"}
    )
    assert "signature is wrong" in await _refusal(verifier, embedded)

    head, _, signature = issuer.token().split(".")
    claims = encode(issuer.claims(tenant="other"))
    assert "signature is wrong" in await _refusal(verifier, f"{head}.{claims}.{signature}")


@pytest.mark.parametrize(
    "header", [{"typ": "logout+jwt"}, {"typ": 7}, {"crit": ["exp"]}, {"b64": False, "crit": ["b64"]}]
)
async def test_other_types_and_critical_headers_are_refused(issuer: Issuer, verifier: OidcVerifier, header: Any):
    await _refusal(verifier, issuer.token(header=header))


@pytest.mark.parametrize("header", [{"typ": None}, {"typ": "at+jwt"}, {"typ": "application/at+jwt"}, {"typ": "jwt"}])
async def test_access_token_types_are_accepted(issuer: Issuer, verifier: OidcVerifier, header: Any):
    assert await verifier.verify(issuer.token(header=header))


async def test_huge_and_odd_tokens_are_refused(issuer: Issuer, verifier: OidcVerifier):
    assert "longer than 8192" in await _refusal(verifier, issuer.token(padding="x" * 9_000))
    deep = encode(b'{"alg":"RS256","kid":"first","x":' + b"[" * 5_000)
    header = encode(b'{"alg":"RS256","kid":"first"}')
    odd = [
        "", ".", "..", "...", "a.b", "a.b.c.d", "Bearer x", f"{deep}.e30.AAAA", f"{header}.e30.", f"{header}..AAAA",
        f"{header}.{encode(b'[' * 5_000)}.AAAA", f"{header}.e30.A", f"{encode([])}.e30.AAAA", f"{encode(7)}.e30.AAAA",
        f"{encode(bytes(range(256)))}.e30.AAAA", issuer.token() + "=", issuer.token()[:-1], issuer.token() + "\n",
        issuer.token().replace(".", "。"), f"{encode(b'{}')}.e30.AAAA", "\x00" * 20, "\ud800.a.b",
        f"{encode({'alg': 'RS256', 'kid': ['first']})}.e30.AAAA",
        f"{encode({'alg': ['RS256'], 'kid': 'first'})}.e30.AAAA",
    ]  # fmt: skip
    for token in odd:
        message = await _refusal(verifier, token)
        assert len(message) < 200
        assert not token or token not in message or len(token) < 4


async def test_signed_nonsense_is_refused(issuer: Issuer, verifier: OidcVerifier):
    key = issuer.keys["first"][1]
    for payload in (b"", b"[]", b"7", b"null", b"{" * 900, b"[" * 4_000, b"\xff\xfe", b'{"exp":1e999}', b'"x"'):
        await _refusal(verifier, sign(payload, key, "RS256", {"kid": "first"}))


async def test_a_token_with_any_character_changed_is_refused(issuer: Issuer, verifier: OidcVerifier):
    token = issuer.token("ES256")
    for place, character in enumerate(token):
        other = "B" if character == "A" else "A"
        await _refusal(verifier, token[:place] + other + token[place + 1 :])


def test_configured_issuers_use_https_except_on_loopback():
    for good in (
        "https://id.example.com",
        "https://id.example.com/realms/x/",
        "http://localhost:8080",
        "http://[::1]",
    ):
        assert OidcConfig(issuer=good, audience="x").issuer == good
    for bad in (
        "http://id.example.com",
        "http://10.0.0.1",
        "https://id.example.com?x=1",
        "ftp://x",
        "id.example.com",
    ):
        with pytest.raises(ValueError, match="issuer"):
            OidcConfig(issuer=bad, audience="x")
