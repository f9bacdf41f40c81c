"""The sections `[tenants.…]` and `[auth]` of `sevenfold.toml`."""

from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_validator

from sevenfold.contracts.access.api_keys import KeyHash, KeyId
from sevenfold.contracts.access.principals import NAME_PATTERN, Scope
from sevenfold.contracts.access.quotas import ADMIN_BUDGET, QuotaFields
from sevenfold.contracts.agents.config import HttpUrl
from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.sections import ConfigSection


def _end_of_day(value: object) -> object:
    """A date means: until the end of that day, UTC."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC) + timedelta(days=1)
    return value


class KeyConfig(ConfigSection, QuotaFields):
    """An API key, by its id and the hash of its secret, with quotas. `sevenfold keys create` prints these lines."""

    id: KeyId
    """the key's part between its first two underscores"""
    hash: KeyHash
    """`sha256:` and the hash of its secret; [`sevenfold keys create`](security.md#tenants-and-keys) prints both"""
    scopes: frozenset[Scope] = Field(min_length=1)
    """list of [scopes](security.md#tenants-and-keys)"""
    expires: Annotated[AwareDatetime, BeforeValidator(_end_of_day)] | None = None
    """a time with its offset, or a date: until the end of that day, UTC; unset: never"""
    name: str = Field(default="", max_length=100, pattern=NAME_PATTERN)
    """what it is for"""
    lineage: KeyId | None = None
    """the first key of those that replaced each other by rotation; they share their quotas"""

    @model_validator(mode="after")
    def _check_budget(self) -> "KeyConfig":
        if self.budget is not None and Scope.ADMIN in self.scopes:
            raise ValueError(ADMIN_BUDGET)
        return self


class TenantConfig(ConfigSection, QuotaFields):
    """A tenant and its quotas. `agents` names those that it may use; all if absent. `weight` is its share of busy
    task queues, compared with the other tenants' weights.
    """

    agents: list[AgentName] | None = None
    """agents that the tenant may use; unset: all"""
    weight: float = Field(default=1.0, ge=0.001, le=1_000, allow_inf_nan=False)
    """share of busy task queues, compared with the other tenants' weights, 0.001 to 1,000"""
    keys: list[KeyConfig] = []
    """list of [keys](#tenantsnamekeys)"""


def is_on_loopback(url: str) -> bool:
    """Whether the URL's host is this machine, by its name or as an address."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_issuer(url: str) -> str:
    if not url.startswith("https://") and not is_on_loopback(url):
        raise ValueError("must be an https URL: whoever changes the issuer's answers could sign tokens")
    if "?" in url or "#" in url:
        raise ValueError("must be the issuer's URL without query and fragment")
    return url


class OidcConfig(ConfigSection):
    """An OpenID Connect issuer whose access tokens (JWT) are accepted beside keys.

    `issuer` is exactly the `iss` of its tokens, with or without a slash at the end. `tenant_claim` holds the tenant's
    name, `scopes_claim` the scopes: a list, or a string with spaces. A dot leads into nested objects, unless a claim
    has the whole name. `leeway_seconds` bounds the difference between the clocks.
    """

    issuer: Annotated[HttpUrl, AfterValidator(_check_issuer)]
    """URL of the issuer, exactly as the claim `iss` has it; https, except on loopback"""
    audience: str = Field(min_length=1, max_length=500)
    """what the claim `aud` has to contain"""
    tenant_claim: str = Field(default="tenant", min_length=1, max_length=200)
    """claim with the tenant's name; dots lead into nested objects"""
    scopes_claim: str = Field(default="scope", min_length=1, max_length=200)
    """claim with the scopes: a list, or a string with spaces"""
    leeway_seconds: float = Field(default=30.0, ge=0, le=300, allow_inf_nan=False)
    """seconds by which the clocks may differ, at most 300"""


class AuthConfig(ConfigSection):
    """Ways of authentication beside keys."""

    oidc: OidcConfig | None = None
