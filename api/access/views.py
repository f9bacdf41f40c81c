"""Tenants and keys as the API shows them. A secret is shown once, when the key is created."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from sevenfold.adapters.access.snapshot import AccessSnapshot
from sevenfold.contracts.access.principals import Scope
from sevenfold.contracts.access.quotas import QuotaView, view_quotas
from sevenfold.contracts.access.tenant_registry import KeyRecord, TenantRecord


class ManagedBy(StrEnum):
    """Where a tenant or key is stored and can be changed: `sevenfold.toml`, or this API."""

    CONFIGURATION = "configuration"
    API = "api"


class TenantView(QuotaView):
    """A tenant and its quotas, which hold for all its keys together."""

    name: str
    origin: ManagedBy
    agents: list[str] | None = Field(description="The agents that it may use; null for all.")
    weight: float = Field(description="Its share of busy task queues, compared with the other tenants' weights.")
    keys: int = Field(description="The number of its keys, with those that have expired.")
    is_erasing: bool = Field(description="Its data are being removed, and its keys are refused.")
    created_at: datetime | None = Field(description="Null for a tenant of `sevenfold.toml`.")


class KeyView(QuotaView):
    """An API key without its secret, and its quotas."""

    id: str
    tenant: str
    origin: ManagedBy
    scopes: list[Scope]
    name: str
    created_at: datetime | None = Field(description="Null for a key of `sevenfold.toml`.")
    expires_at: datetime | None
    replaced_by: str | None = Field(description="The id of the key that a rotation created instead of this one.")
    last_used_at: datetime | None = Field(description="To the minute, and up to a minute late; null if never used.")


class NewKeyView(KeyView):
    """A new key. `key` is not stored and cannot be shown again."""

    key: str = Field(examples=["sf_4k2v9q0c8x1m_2H8vJ0…"])


def view_tenant(snapshot: AccessSnapshot, tenant: TenantRecord) -> TenantView:
    """Returns a tenant as the API shows it."""
    is_configured = snapshot.is_configured(tenant.name)
    return TenantView(
        name=tenant.name,
        origin=ManagedBy.CONFIGURATION if is_configured else ManagedBy.API,
        agents=tenant.agents,
        weight=tenant.weight,
        **view_quotas(tenant.quotas),
        keys=len(snapshot.list_keys(tenant.name)),
        is_erasing=snapshot.is_erasing(tenant.name),
        created_at=None if is_configured else tenant.created_at,
    )


def view_key(snapshot: AccessSnapshot, key: KeyRecord) -> KeyView:
    """Returns a key as the API shows it."""
    is_configured = key.id in snapshot.configured.keys
    return KeyView(
        id=key.id,
        tenant=key.tenant,
        origin=ManagedBy.CONFIGURATION if is_configured else ManagedBy.API,
        scopes=sorted(key.scopes),
        name=key.name,
        **view_quotas(key.quotas),
        created_at=None if is_configured else key.created_at,
        expires_at=key.expires_at,
        replaced_by=key.replaced_by,
        last_used_at=snapshot.last_use.keys.get(key.id),
    )
