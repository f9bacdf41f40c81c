"""Checks the quotas of a run that is about to start."""

from dataclasses import dataclass

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.quotas.budgets import Budgets
from sevenfold.adapters.quotas.open_work import OpenWork, Reservation
from sevenfold.adapters.quotas.stored_bytes import StoredBytes
from sevenfold.contracts.runs.run import Pattern


@dataclass(frozen=True)
class StartQuotas:
    """What tenants and keys may start. Without quotas, nothing is asked."""

    access: AccessDirectory
    budgets: Budgets
    stored_bytes: StoredBytes
    open_work: OpenWork

    async def reserve(self, tenant: str, key_id: str | None, pattern: Pattern, items: int) -> Reservation:
        """Reserves the places of a run with `items` items (1 without any). Raises QuotaExceededError and RPCError."""
        owners = (await self.access.load()).quota_owners(tenant, key_id)
        await self.budgets.check(owners)
        await self.stored_bytes.check(owners)
        return await self.open_work.reserve(owners, pattern, items)
