"""Counts what the calls of this process use, and writes it to the tenants' ledgers."""

import asyncio
import secrets
import socket
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from temporalio.service import RPCError

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.quotas.usage_ledger import UsageLedgerClient
from sevenfold.contracts.usage import NO_USAGE, DayUsage, UsageFlush, UsageTotals, month_of

log = structlog.get_logger(__name__)

# How long usage is collected: where a budget depends on it, and otherwise.
_BUDGET_FLUSH_SECONDS, _FLUSH_SECONDS = 1.0, 5.0

# Without Temporal, an exit must not wait longer for the last flush.
_CLOSE_SECONDS = 5.0


def today() -> str:
    """Returns the day that counts now, in UTC, as YYYY-MM-DD."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


@dataclass
class _Ledger:
    """What this process has for one ledger. `pending` was sent, and Temporal may have it: it is sent again as it is
    before anything new. `sequence` is the number of the last flush.
    """

    collected: dict[str, DayUsage] = field(default_factory=dict)
    pending: UsageFlush | None = None
    sequence: int = 0

    @property
    def has_work(self) -> bool:
        return bool(self.collected) or self.pending is not None

    def next_flush(self, process: str) -> UsageFlush:
        if self.pending is None:
            self.sequence += 1
            self.pending = UsageFlush(process=process, sequence=self.sequence, days=self.collected)
            self.collected = {}
        return self.pending


@dataclass
class DayCounts:
    """A tenant's day in this process: all that was recorded, and how much of it Temporal has."""

    recorded: DayUsage = field(default_factory=DayUsage)
    written: DayUsage = field(default_factory=DayUsage)


class UsageMeter:
    """Writes each ledger at most once a second, and every 5 s for tenants without a budget.

    A process that is killed loses what it collected since. What Temporal did not confirm is sent again under the same
    number, which the ledger counts once.
    """

    def __init__(self, ledgers: UsageLedgerClient, access: AccessDirectory) -> None:
        self._client = ledgers
        self._access = access
        self._process = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._ledgers: defaultdict[tuple[str, str], _Ledger] = defaultdict(_Ledger)
        self._day = ""
        self._counts: defaultdict[str, DayCounts] = defaultdict(DayCounts)
        self._flushes: dict[tuple[str, str], asyncio.Task[None]] = {}

    def counts(self, tenant: str) -> DayCounts:
        """Returns what this process has counted today."""
        self._start_day()
        return self._counts[tenant]

    def record(self, tenant: str, key_id: str | None, agent: str, totals: UsageTotals) -> None:
        """Counts calls that have ended. Returns at once; the ledger is written in the background."""
        self._start_day()
        owners = self._access.latest.quota_owners(tenant, key_id)
        budgeted = [owner for owner in owners if owner.quotas.budget is not None]
        keys = {owner.name: totals for owner in budgeted if owner.key_id is not None}
        usage = DayUsage(agents={agent: totals}, keys=keys)
        counts = self._counts[tenant]
        counts.recorded = counts.recorded.add(usage)
        place = (tenant, month_of(self._day))
        ledger = self._ledgers[place]
        ledger.collected[self._day] = ledger.collected.get(self._day, DayUsage()).add(usage)
        if place not in self._flushes:
            delay = _BUDGET_FLUSH_SECONDS if budgeted else _FLUSH_SECONDS
            self._flushes[place] = asyncio.create_task(self._flush_later(place, delay))

    async def aclose(self) -> None:
        """Writes what is left, for up to 5 s."""
        for task in self._flushes.values():
            task.cancel()
        await asyncio.gather(*self._flushes.values(), return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                for place, ledger in list(self._ledgers.items()):
                    while ledger.has_work:
                        await self._flush(place)
        except (RPCError, TimeoutError) as error:
            log.warning("the usage of the last seconds is not recorded", error=str(error))

    def _start_day(self) -> None:
        day = today()
        if day != self._day:
            self._day = day
            self._counts.clear()

    async def _flush_later(self, place: tuple[str, str], delay: float) -> None:
        while True:
            await asyncio.sleep(delay)
            try:
                await self._flush(place)
            except Exception as error:  # Whatever it is, the next second tries again.
                log.warning("usage cannot be recorded yet", tenant=place[0], error=repr(error)[:200])
            if not self._ledgers[place].has_work:
                break
        del self._flushes[place]  # Without an await since the check: `record` starts the next one.
        if place[1] != month_of(today()):
            self._ledgers.pop(place, None)

    async def _flush(self, place: tuple[str, str]) -> None:
        tenant, month = place
        ledger = self._ledgers[place]
        flush = ledger.next_flush(self._process)
        if not self._access.latest.is_erasing(tenant):  # An erased tenant's ledger must not begin anew.
            await self._client.record(tenant, month, flush)
        ledger.pending = None
        if self._day in flush.days:
            counts = self._counts[tenant]
            counts.written = counts.written.add(flush.days[self._day])


def unwritten(counts: DayCounts, written_before: DayUsage, key_id: str | None) -> UsageTotals:
    """Returns what was recorded and not yet written at an earlier moment, when `written_before` was written: of the
    tenant, or of one of its keys.
    """
    if key_id is not None:
        return counts.recorded.keys.get(key_id, NO_USAGE).subtract(written_before.keys.get(key_id, NO_USAGE))
    return counts.recorded.total.subtract(written_before.total)
