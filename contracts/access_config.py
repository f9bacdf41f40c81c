"""The sections `[tenants.…]` and `[auth]` of `sevenfold.toml`."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, Field

from sevenfold.contracts.access import Scope
from sevenfold.contracts.agent import AgentName
from sevenfold.contracts.agent_config import HttpUrl
from sevenfold.contracts.api_keys import KeyHash, KeyId
from sevenfold.contracts.sections import ConfigSection


def _end_of_day(value: object) -> object:
    """A date means: until the end of that day, UTC."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC) + timedelta(days=1)
    return value


class KeyConfig(ConfigSection):
    """An API key, by its id and the hash of its secret. `sevenfold keys create` prints these lines."""

    id: KeyId
    hash: KeyHash
    scopes: frozenset[Scope] = Field(min_length=1)
    # A time with its offset, or a date: then until the end of that day, UTC.
    expires: Annotated[AwareDatetime, BeforeValidator(_end_of_day)] | None = None
    name: str = Field(default="", max_length=100)


class TenantConfig(ConfigSection):
    """A tenant. `agents` names those that it may use; all if absent. `weight` is its share of busy task queues,
    compared with the other tenants' weights.
    """

    agents: list[AgentName] | None = None
    weight: float = Field(default=1.0, ge=0.001, le=1_000, allow_inf_nan=False)
    keys: list[KeyConfig] = []


class OidcConfig(ConfigSection):
    """An OpenID Connect issuer whose access tokens (JWT) are accepted beside keys.

    `tenant_claim` holds the tenant's name, `scopes_claim` the scopes: a list, or a string with spaces. A dot leads
    into nested objects. `leeway_seconds` bounds the difference between the clocks.
    """

    issuer: HttpUrl
    audience: str = Field(min_length=1, max_length=500)
    tenant_claim: str = Field(default="tenant", min_length=1, max_length=200)
    scopes_claim: str = Field(default="scope", min_length=1, max_length=200)
    leeway_seconds: float = Field(default=30.0, ge=0, le=300, allow_inf_nan=False)


class AuthConfig(ConfigSection):
    """Ways of authentication beside keys."""

    oidc: OidcConfig | None = None
