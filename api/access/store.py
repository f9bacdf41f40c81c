"""Changes tenants and keys. Those of `sevenfold.toml` can be read here, but not changed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.access.snapshot import AccessSnapshot
from sevenfold.api.dependencies import component
from sevenfold.api.http.problems import ProblemError, ProblemType, not_found
from sevenfold.contracts.access.api_keys import NewKey, generate_key
from sevenfold.contracts.access.principals import Scope
from sevenfold.contracts.access.quotas import Quotas
from sevenfold.contracts.access.tenant_registry import (
    KeyRecord,
    LimitKeyInput,
    PutKeyInput,
    PutTenantInput,
    RotateKeyInput,
    TenantRecord,
)


@dataclass(frozen=True)
class KeyTerms:
    """What a key permits, its name, its quotas, and its end."""

    scopes: list[Scope]
    name: str
    quotas: Quotas
    expires_at: datetime | None


@dataclass(frozen=True)
class TenantStore:
    """Reads and changes tenants and keys. A change acts in this process at once, in the others within a second."""

    directory: AccessDirectory

    async def load(self) -> AccessSnapshot:
        """Returns the tenants and keys as they are now. Raises 503 if they cannot be read."""
        snapshot = await self.directory.reload()
        if not snapshot.is_current:
            raise ProblemError(
                ProblemType.TEMPORAL_UNAVAILABLE, "Tenants and keys cannot be read now.", retry_after=2
            )
        return snapshot

    async def find_tenant(self, name: str) -> tuple[AccessSnapshot, TenantRecord]:
        """Returns a tenant. Raises 404."""
        snapshot = await self.load()
        tenant = snapshot.find_tenant(name)
        if tenant is None:
            raise not_found(f"The tenant {name}")
        return snapshot, tenant

    async def put_tenant(self, tenant: TenantRecord, *, create_only: bool) -> AccessSnapshot:
        """Stores a tenant. Raises 409 if the configuration has it, or if `create_only` and it exists."""
        if (await self.load()).is_configured(tenant.name):
            raise _fixed(f"The tenant {tenant.name}")
        await self.directory.registry.put_tenant(PutTenantInput(tenant=tenant, create_only=create_only))
        return await self.load()

    async def remove_tenant(self, name: str) -> None:
        """Removes a tenant and its keys; its runs stay until the retention. Raises 404, and 409 if the configuration
        has it or if it is being erased.
        """
        snapshot, _ = await self.find_tenant(name)
        if snapshot.is_configured(name):
            raise _fixed(f"The tenant {name}")
        if snapshot.is_erasing(name):  # Without its record, its name would be free while data are removed.
            raise ProblemError(ProblemType.TENANT_ERASED, f"The data of the tenant {name} are being erased.")
        await self.directory.registry.remove_tenant(name)
        await self.directory.reload()

    async def create_key(self, tenant: str, terms: KeyTerms) -> tuple[AccessSnapshot, KeyRecord, NewKey]:
        """Creates a key of a tenant. Raises 404 and 409."""
        snapshot, _ = await self.find_tenant(tenant)
        new = generate_key()
        record = KeyRecord(
            id=new.key_id,
            tenant=tenant,
            hash=new.hash,
            scopes=terms.scopes,
            name=terms.name,
            quotas=terms.quotas,
            created_at=datetime.now(UTC),
            expires_at=terms.expires_at,
        )
        change = PutKeyInput(key=record, is_tenant_configured=snapshot.is_configured(tenant))
        await self.directory.registry.put_key(change)
        return await self.load(), record, new

    async def rotate_key(
        self, tenant: str, key_id: str, overlap_seconds: int
    ) -> tuple[AccessSnapshot, KeyRecord, NewKey]:
        """Creates a key like this one, which expires after the overlap. Raises 404 and 409."""
        await self._find_own_key(tenant, key_id)
        new = generate_key()
        change = RotateKeyInput(
            tenant=tenant, key_id=key_id, new_id=new.key_id, new_hash=new.hash, overlap_seconds=overlap_seconds
        )
        record = await self.directory.registry.rotate_key(change)
        return await self.load(), record, new

    async def limit_key(
        self, tenant: str, key_id: str, change: Callable[[KeyRecord], Quotas]
    ) -> tuple[AccessSnapshot, KeyRecord]:
        """Changes the quotas of a key. Raises 404 and 409."""
        key = await self._find_own_key(tenant, key_id)
        record = await self.directory.registry.limit_key(
            LimitKeyInput(tenant=tenant, key_id=key_id, quotas=change(key))
        )
        return await self.load(), record

    async def revoke_key(self, tenant: str, key_id: str) -> None:
        """Revokes a key. Raises 404 and 409."""
        await self._find_own_key(tenant, key_id)
        await self.directory.registry.remove_key(key_id)
        await self.directory.reload()

    async def _find_own_key(self, tenant: str, key_id: str) -> KeyRecord:
        snapshot = await self.load()
        if key_id in snapshot.configured.keys and snapshot.configured.keys[key_id].tenant == tenant:
            raise _fixed(f"The key {key_id}")
        key = snapshot.stored.keys.get(key_id)
        if key is None or key.tenant != tenant:
            raise not_found(f"The key {key_id}")
        return key


def _fixed(what: str) -> ProblemError:
    return ProblemError(
        ProblemType.ACCESS_FIXED,
        f"{what} is part of sevenfold.toml. Change it there (a key with `sevenfold keys … --write`), and start the "
        "gateway again.",
    )


TenantStoreDep = Annotated[TenantStore, Depends(component("tenant_store"))]
