"""Checks the budgets of tenants and keys: tokens and US dollars of a day, UTC."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import structlog
from cachetools import LRUCache
from temporalio.service import RPCError

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.quotas.usage_ledger import LedgerReading, UsageLedgerClient
from sevenfold.adapters.quotas.usage_meter import UsageMeter, today
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.contracts.access.quotas import QuotaName, QuotaOwner
from sevenfold.contracts.agents.config import MICRO_USD
from sevenfold.contracts.agents.errors import QuotaExceeded
from sevenfold.contracts.agents.usage import DayUsage, UsageTotals

log = structlog.get_logger(__name__)

_MAX_AGE_SECONDS = 1.0
_MAX_TENANTS = 5_000
_DAY_SECONDS = 86_400


class Budgets:
    """Reads a ledger at most once a second, and adds what this process has counted and the ledger lacks.

    What may be used over a budget: the calls that are in flight when it is used up, and what other processes count
    within two seconds (one until they write it, one until this process reads it). While a ledger cannot be read, the
    last reading counts: an outage of Temporal must not fail the calls of accepted runs.
    """

    def __init__(self, access: AccessDirectory, ledgers: UsageLedgerClient, meter: UsageMeter) -> None:
        self._access = access
        self._ledgers = ledgers
        self._meter = meter
        self._readings = SharedAnswers(_MAX_AGE_SECONDS)
        self._latest: LRUCache[str, LedgerReading] = LRUCache(_MAX_TENANTS)

    async def check(self, owners: Iterable[QuotaOwner]) -> None:
        """Raises QuotaExceededError if one of the owners has used up its budget."""
        for owner in owners:
            if owner.quotas.budget is not None:
                _check(owner, await self.used(owner))

    async def check_call(self, tenant: str, key_id: str | None) -> None:
        """Raises QuotaExceeded if a call of the tenant's run, which the key started, may not be made now."""
        owners = (await self._access.load()).quota_owners(tenant, key_id)
        try:
            await self.check(owners)
        except QuotaExceededError as error:
            raise QuotaExceeded(str(error), retry_after=error.retry_after, quota=error.quota) from None

    async def used(self, owner: QuotaOwner) -> UsageTotals:
        """Returns what the owner has used today."""
        reading = await self._readings.get((owner.tenant, today()), lambda: self._read(owner.tenant))
        return reading.usage.total(owner.key_id).add(self._meter.unseen(owner.tenant, reading, owner.key_id))

    async def _read(self, tenant: str) -> LedgerReading:
        day = today()
        try:
            reading = await self._ledgers.read_today(tenant, day, self._meter.process)
        except RPCError as error:
            log.warning("usage cannot be read; the last reading counts", tenant=tenant, error=error.message)
            known = self._latest.get(tenant)
            return known if known is not None and known.day == day else LedgerReading(day, DayUsage(), 0)
        self._latest[tenant] = reading
        return reading


def seconds_to_midnight() -> float:
    """Returns the seconds until the next day begins, UTC."""
    return _DAY_SECONDS - time.time() % _DAY_SECONDS


def next_midnight() -> datetime:
    """Returns when the next day begins, UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _check(owner: QuotaOwner, used: UsageTotals) -> None:
    budget = owner.quotas.budget
    assert budget is not None, "checked by the caller"  # noqa: S101
    if budget.tokens is not None and used.tokens >= budget.tokens:
        _refuse(owner, QuotaName.TOKENS, budget.tokens, f"{budget.tokens:,} tokens", f"{used.tokens:,}")
    if budget.usd is not None and used.micro_usd >= budget.usd * MICRO_USD:
        _refuse(owner, QuotaName.USD, budget.usd, f"${budget.usd:,.2f}", f"${used.micro_usd / MICRO_USD:,.2f}")


def _refuse(owner: QuotaOwner, quota: QuotaName, limit: float, limit_text: str, used_text: str) -> NoReturn:
    raise QuotaExceededError(
        owner,
        quota,
        limit,
        f"The {owner.kind} may use {limit_text} a day and has used {used_text} today. The next day begins at "
        f"{next_midnight():%Y-%m-%dT%H:%M:%SZ}.",
        retry_after=seconds_to_midnight(),
        window=_DAY_SECONDS,
    )
