"""Limits what tenants keep in the stores of large payloads."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from cachetools import LRUCache
from temporalio.client import Client

from sevenfold.adapters.payloads.stores import PayloadStoreError, expiring_stores
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.contracts.quotas import OwnerKind, QuotaName, QuotaOwner

log = structlog.get_logger(__name__)

# Measuring lists all files of the tenant, in the background: only the first one is awaited, for a second at most.
_MEASURED_EVERY_SECONDS, _FIRST_SECONDS = 30.0, 1.0
_RETRY_SECONDS = 60.0
_MAX_TENANTS = 5_000


@dataclass
class _Measurement:
    stored: int = 0
    started_at: float = float("-inf")
    running: asyncio.Task[None] | None = None


class StoredBytes:
    """Measures at most once in 30 s, so what a tenant may store over its quota is what it sends in that time. While a
    store cannot be measured, the last measurement counts.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._measured: LRUCache[str, _Measurement] = LRUCache(_MAX_TENANTS)

    async def check(self, owners: Iterable[QuotaOwner]) -> None:
        """Raises QuotaExceededError if the tenant has used up its bytes."""
        for owner in owners:
            limit = owner.quotas.stored_bytes
            if owner.kind is not OwnerKind.TENANT or limit is None:
                continue
            stored = await self._load(owner.name)
            if stored >= limit:
                raise QuotaExceededError(
                    owner,
                    QuotaName.STORED_BYTES,
                    limit,
                    f"The tenant may store {limit:,} bytes and has {stored:,}. They go after the retention. "
                    "Send smaller data, or ask for a larger quota.",
                    retry_after=_RETRY_SECONDS,
                )

    async def _load(self, tenant: str) -> int:
        known = self._measured.get(tenant)
        is_first = known is None
        if known is None:
            known = self._measured[tenant] = _Measurement()
        if known.running is None and time.monotonic() - known.started_at > _MEASURED_EVERY_SECONDS:
            known.started_at = time.monotonic()
            known.running = asyncio.create_task(self._measure(tenant, known))
        if is_first and known.running is not None:
            await asyncio.wait({known.running}, timeout=_FIRST_SECONDS)
        return known.stored

    async def _measure(self, tenant: str, known: _Measurement) -> None:
        try:
            stores = expiring_stores(self._client.data_converter)
            known.stored = sum([await store.measure_tenant(tenant, self._client.namespace) for store in stores])
        except (PayloadStoreError, OSError) as error:
            log.warning("the stored bytes of a tenant cannot be measured", tenant=tenant, error=str(error))
        finally:
            known.running = None
