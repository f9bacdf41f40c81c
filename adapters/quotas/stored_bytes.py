"""Limits what tenants and keys keep in the stores of large payloads."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from cachetools import LRUCache
from temporalio.client import Client

from sevenfold.adapters.payloads.stores import PayloadOwner, PayloadStoreError, expiring_stores
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.contracts.access.quotas import QuotaName, QuotaOwner

log = structlog.get_logger(__name__)

# Measuring lists all files of the owner, in the background: only the first one is awaited, for a second at most. It
# is renewed after 2 s, and never before a hundred times its own duration.
_MAX_AGE_SECONDS, _MAX_SHARE, _FIRST_SECONDS = 2.0, 100.0, 1.0
_RETRY_SECONDS = 60.0
_MAX_OWNERS = 5_000


@dataclass
class _Measurement:
    stored: int = 0
    started_at: float = float("-inf")
    seconds: float = 0.0
    running: asyncio.Task[None] | None = None


class StoredBytes:
    """Measures at most once in 2 s, or in a hundred times as long as it takes: what an owner may store over its quota
    is what it sends in that time. While a store cannot be measured, the last measurement counts.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._measured: LRUCache[PayloadOwner, _Measurement] = LRUCache(_MAX_OWNERS)

    async def check(self, owners: Iterable[QuotaOwner]) -> None:
        """Raises QuotaExceededError if one of them has used up its bytes."""
        for owner in owners:
            limit = owner.quotas.stored_bytes
            if limit is None:
                continue
            stored = await self._load(PayloadOwner(owner.tenant, owner.key_id))
            if stored >= limit:
                raise QuotaExceededError(
                    owner,
                    QuotaName.STORED_BYTES,
                    limit,
                    f"The {owner.kind} may store {limit:,} bytes and has {stored:,}. They go after the retention. "
                    "Until some have gone, it starts nothing: ask for a larger quota.",
                    retry_after=_RETRY_SECONDS,
                )

    async def _load(self, owner: PayloadOwner) -> int:
        known = self._measured.get(owner)
        is_first = known is None
        if known is None:
            known = self._measured[owner] = _Measurement()
        max_age = max(_MAX_AGE_SECONDS, _MAX_SHARE * known.seconds)
        if known.running is None and time.monotonic() - known.started_at > max_age:
            known.started_at = time.monotonic()
            known.running = asyncio.create_task(self._measure(owner, known))
        if is_first and known.running is not None:
            await asyncio.wait({known.running}, timeout=_FIRST_SECONDS)
        return known.stored

    async def _measure(self, owner: PayloadOwner, known: _Measurement) -> None:
        try:
            stores = expiring_stores(self._client.data_converter)
            known.stored = sum([await store.measure(owner, self._client.namespace) for store in stores])
        except (PayloadStoreError, OSError) as error:
            log.warning("stored bytes cannot be measured", tenant=owner.tenant, key=owner.key, error=str(error))
        finally:
            known.seconds = time.monotonic() - known.started_at
            known.running = None
