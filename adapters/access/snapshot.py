"""The tenants and keys as one process knows them: those of `sevenfold.toml`, and those of the `TenantRegistry`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sevenfold.contracts.access.quotas import NO_QUOTAS, OwnerKind, QuotaOwner
from sevenfold.contracts.access.tenant_registry import KeyRecord, LastUse, TenantRecord, TenantRegistryState
from sevenfold.contracts.config.access import TenantConfig
from sevenfold.contracts.identity import DEFAULT_TENANT

# Records of the configuration have no time of creation of their own.
_CONFIGURED_AT = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ConfiguredAccess:
    """The tenants and keys of `sevenfold.toml`. The default tenant always exists."""

    tenants: Mapping[str, TenantRecord]
    keys: Mapping[str, KeyRecord]

    @classmethod
    def from_config(cls, tenants: Mapping[str, TenantConfig]) -> "ConfiguredAccess":
        """Builds the records of the sections `[tenants.…]`."""
        records = {
            name: TenantRecord(
                name=name,
                agents=None if config.agents is None else sorted(config.agents),
                weight=config.weight,
                quotas=config.build_quotas(),
                created_at=_CONFIGURED_AT,
            )
            for name, config in tenants.items()
        }
        keys = {
            key.id: KeyRecord(
                id=key.id,
                tenant=name,
                hash=key.hash,
                scopes=sorted(key.scopes),
                name=key.name,
                quotas=key.build_quotas(),
                created_at=_CONFIGURED_AT,
                expires_at=key.expires,
                lineage=key.lineage,
            )
            for name, config in tenants.items()
            for key in config.keys
        }
        return cls(records, keys)


@dataclass(frozen=True)
class AccessSnapshot:
    """What a process knows at a moment. `configured` takes precedence over `stored`.

    `is_current`: the registry was read within the last second. If it was not, an unknown key may exist.
    """

    configured: ConfiguredAccess
    stored: TenantRegistryState
    is_current: bool

    def find_key(self, key_id: str, *, with_inactive: bool = False) -> KeyRecord | None:
        """Returns a key, expired or not; None if there is none, or if its tenant does not exist or is being erased
        (unless `with_inactive`).
        """
        key = self.configured.keys.get(key_id) or self.stored.keys.get(key_id)
        return key if key is not None and (with_inactive or self.is_active(key.tenant)) else None

    def find_tenant(self, name: str) -> TenantRecord | None:
        """Returns a tenant; None if it does not exist."""
        found = self.configured.tenants.get(name) or self.stored.tenants.get(name)
        if found is None and name == DEFAULT_TENANT:
            return TenantRecord(name=DEFAULT_TENANT, created_at=_CONFIGURED_AT)
        return found

    def list_tenants(self) -> list[TenantRecord]:
        """Returns all tenants, by name."""
        names = {DEFAULT_TENANT, *self.configured.tenants, *self.stored.tenants}
        return [tenant for name in sorted(names) if (tenant := self.find_tenant(name))]

    def list_keys(self, tenant: str) -> list[KeyRecord]:
        """Returns a tenant's keys, by id."""
        keys = {**self.stored.keys, **self.configured.keys}
        return [keys[key_id] for key_id in sorted(keys) if keys[key_id].tenant == tenant]

    def is_configured(self, tenant: str) -> bool:
        """Whether the tenant is part of `sevenfold.toml`."""
        return tenant in self.configured.tenants or tenant == DEFAULT_TENANT

    def is_active(self, tenant: str) -> bool:
        """Whether the tenant exists and is not being erased."""
        return self.find_tenant(tenant) is not None and not self.is_erasing(tenant)

    def is_erasing(self, tenant: str) -> bool:
        """Whether the tenant's data are being removed."""
        stored = self.stored.tenants.get(tenant)
        return stored is not None and stored.is_erasing

    def weight(self, tenant: str) -> float:
        """Returns the tenant's share of busy task queues, compared with the other tenants' weights."""
        found = self.find_tenant(tenant)
        return 1.0 if found is None else found.weight

    def allowed_agents(self, tenant: str) -> frozenset[str] | None:
        """Returns the agents that the tenant may use; None for all. A tenant that does not exist may use none."""
        found = self.find_tenant(tenant)
        if found is None:
            return frozenset()
        return None if found.agents is None else frozenset(found.agents)

    def find_lineage(self, key_id: str) -> str:
        """Returns the id under which a key's quotas are counted."""
        key = self.find_key(key_id)
        return key_id if key is None or key.lineage is None else key.lineage

    def quota_owners(self, tenant: str, key_id: str | None) -> list[QuotaOwner]:
        """Returns the tenant and the key, as far as they have quotas."""
        found = self.find_tenant(tenant)
        owners = [] if found is None else [QuotaOwner(OwnerKind.TENANT, tenant, tenant, found.quotas)]
        key = self.find_key(key_id) if key_id else None
        if key is not None:
            owners.append(QuotaOwner(OwnerKind.KEY, key.lineage or key.id, tenant, key.quotas))
        return [owner for owner in owners if owner.quotas != NO_QUOTAS]

    @property
    def has_keys(self) -> bool:
        """Whether there is any key."""
        return bool(self.configured.keys or self.stored.keys)

    @property
    def last_use(self) -> LastUse:
        """The last use of each key, up to a minute late."""
        return self.stored.last_use
