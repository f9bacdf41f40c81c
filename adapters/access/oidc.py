"""Verifies access tokens (JWT) of an OpenID Connect issuer."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
from pydantic import TypeAdapter, ValidationError

from sevenfold.adapters.access.issuer_keys import IssuerKeys, IssuerUnavailableError, KeyTimes
from sevenfold.adapters.access.signing_keys import ALGORITHMS, SigningKey
from sevenfold.contracts.access.principals import Principal, Scope, TenantName
from sevenfold.contracts.config.access import OidcConfig

__all__ = ["InvalidTokenError", "IssuerUnavailableError", "KeyTimes", "OidcVerifier"]

_MAX_TOKEN_CHARACTERS = 8_192
_MAX_DEPTH = 8
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# Other types (`logout+jwt`, …) are signed by the same keys, but give no access.
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_SUBJECT = re.compile(r"[!-~]{1,128}")

_TENANT: TypeAdapter[str] = TypeAdapter(TenantName)
_SCOPES = frozenset(Scope)

# The first match counts. The library's own messages may contain parts of the token.
_REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "The token has expired. Get a new one from the issuer."),
    (jwt.ImmatureSignatureError, "The token is not valid yet. Check the clocks of the issuer and of this machine."),
    (jwt.InvalidIssuerError, "The token is of another issuer."),
    (jwt.InvalidAudienceError, "The token is for another audience."),
    (jwt.MissingRequiredClaimError, "The token lacks one of the claims iss, aud, exp and sub."),
    (jwt.InvalidSignatureError, "The token's signature is wrong."),
)
# The prefix of the `key_id` of an access token's subject. The id of an API key has no colon.
OIDC_PREFIX = "oidc:"

_MALFORMED = "The token is not a valid signed JWT."


class InvalidTokenError(Exception):
    """The token gives no access. The message is for the client and contains nothing of the token."""


class OidcVerifier:
    """Accepts the access tokens of one issuer.

    `http` fetches the issuer's documents (see `issuer_client`); nothing is fetched before the first token. Call
    `aclose` before `http` is closed.
    """

    def __init__(self, config: OidcConfig, http: httpx.AsyncClient, *, times: KeyTimes | None = None) -> None:
        self._config = config
        self._http = http
        self._keys = IssuerKeys(config.issuer, http, times or KeyTimes())

    async def verify(self, token: str) -> Principal:
        """Returns who sent the token: its tenant and scopes. `key_id` is `oidc:` and the subject.

        Raises InvalidTokenError, and IssuerUnavailableError while the issuer's keys are not known.
        """
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise InvalidTokenError(f"The token is longer than {_MAX_TOKEN_CHARACTERS} characters.")
        kid, algorithm = _read_header(token)
        claims = self._check(token, await self._find_key(kid, algorithm), algorithm)
        scopes = _read_scopes(claims, self._config.scopes_claim)
        return Principal(
            tenant=_read_tenant(claims, self._config.tenant_claim),
            scopes=scopes,
            key_id=f"{OIDC_PREFIX}{_printable(claims['sub'])}",
            expires_at=_read_expiry(claims, self._config.leeway_seconds),
            lists_all=Scope.ADMIN in scopes,
        )

    async def aclose(self) -> None:
        """Stops refreshing the keys and closes the client."""
        await self._keys.aclose()
        await self._http.aclose()

    async def _find_key(self, kid: str | None, algorithm: str) -> SigningKey:
        keys = await self._keys.current()
        if kid is not None and not keys.has(kid):
            keys = await self._keys.newest()
        key = keys.find(kid, algorithm)
        if key is None:
            raise InvalidTokenError("The token is not signed with a key that the issuer publishes for its algorithm.")
        return key

    def _check(self, token: str, key: SigningKey, algorithm: str) -> dict[str, Any]:
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],  # one of those that the key allows
                issuer=self._config.issuer,
                audience=self._config.audience,
                leeway=self._config.leeway_seconds,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise InvalidTokenError(_reason(error)) from None
        # The library takes texts such as "17" for numbers, and `true` for 1.
        if any(type(claims[name]) not in (int, float) for name in ("exp", "nbf", "iat") if name in claims):
            raise InvalidTokenError("The token's claims exp, nbf and iat have to be numbers.")
        return claims


def _read_header(token: str) -> tuple[str | None, str]:
    """Returns `kid` and `alg` of the token, which is not verified yet."""
    if not _JWT.fullmatch(token):
        raise InvalidTokenError(_MALFORMED)
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise InvalidTokenError(_MALFORMED) from None
    algorithm, kind = header.get("alg"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise InvalidTokenError(
            f"The token's algorithm is not accepted. Accepted are {', '.join(sorted(ALGORITHMS))}."
        )
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise InvalidTokenError("The token is not an access token, by its type.")
    return header.get("kid"), algorithm  # the library has checked that `kid` is a string


def _reason(error: Exception) -> str:
    return next((text for kind, text in _REASONS if isinstance(error, kind)), _MALFORMED)


def _read_claim(claims: Mapping[str, Any], path: str) -> Any:
    """Returns a claim, or None. The whole path comes first: `https://example.com/tenant` is one name."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split(".", _MAX_DEPTH):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _read_tenant(claims: Mapping[str, Any], path: str) -> str:
    name = _read_claim(claims, path)
    if name is None:
        raise InvalidTokenError(f"The token lacks the claim {path}, which names the tenant.")
    try:
        return _TENANT.validate_python(name, strict=True)
    except ValidationError:
        raise InvalidTokenError(f"The token's claim {path} is not a tenant's name.") from None


def _read_scopes(claims: Mapping[str, Any], path: str) -> frozenset[Scope]:
    """Returns the known scopes; others belong to other services."""
    value = _read_claim(claims, path)
    names = value.split(" ") if isinstance(value, str) else value
    if names is None:
        return frozenset()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidTokenError(f"The token's claim {path} is neither a list of scopes nor a string.")
    return frozenset(Scope(name) for name in names if name in _SCOPES)


def _read_expiry(claims: Mapping[str, Any], leeway: float) -> datetime:
    """Returns until when the token is accepted, so that its streams end no earlier than it."""
    try:
        return datetime.fromtimestamp(claims["exp"] + leeway, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidTokenError("The token's claim exp is too far in the future.") from None


def _printable(subject: str) -> str:
    """Returns the subject if it is short and printable, else its SHA-256, which is different for each subject."""
    if _SUBJECT.fullmatch(subject) and not subject.startswith("sha256-"):
        return subject
    return f"sha256-{hashlib.sha256(subject.encode('utf-8', 'surrogatepass')).hexdigest()}"
