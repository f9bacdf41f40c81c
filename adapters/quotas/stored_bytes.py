"""Limits what tenants keep in the stores of large payloads."""

from collections.abc import Iterable

from temporalio.client import Client

from sevenfold.adapters.payloads.stores import expiring_stores
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.contracts.quotas import OwnerKind, QuotaName, QuotaOwner

# Measuring lists all files of the tenant.
_MEASURED_EVERY_SECONDS = 30.0
_RETRY_SECONDS = 60.0


class StoredBytes:
    """Measures at most once in 30 s, so what a tenant may store over its quota is what it sends in that time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._measured = SharedAnswers(_MEASURED_EVERY_SECONDS)

    async def check(self, owners: Iterable[QuotaOwner]) -> None:
        """Raises QuotaExceededError if the tenant has used up its bytes, and PayloadStoreError."""
        for owner in owners:
            limit = owner.quotas.stored_bytes
            if owner.kind is not OwnerKind.TENANT or limit is None:
                continue
            stored = await self._measured.get(owner.name, lambda: self._measure(owner.name))  # noqa: B023
            if stored >= limit:
                raise QuotaExceededError(
                    owner,
                    QuotaName.STORED_BYTES,
                    limit,
                    f"The tenant may store {limit:,} bytes and has {stored:,}. They go after the "
                    "retention. Send smaller data, or ask for a larger quota.",
                    retry_after=_RETRY_SECONDS,
                )

    async def _measure(self, tenant: str) -> int:
        stores = expiring_stores(self._client.data_converter)
        return sum([await store.measure_tenant(tenant, self._client.namespace) for store in stores])
