"""Counts what the calls of this process use, and writes it to the tenants' ledgers."""

import asyncio
import secrets
import socket
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.metrics.runs import count_usage
from sevenfold.adapters.quotas.usage_ledger import LedgerReading, UsageLedgerClient
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.contracts.agents.usage import DayUsage, UsageFlush, UsageTotals, month_of, sum_usage

log = structlog.get_logger(__name__)

# How long usage is collected: where a budget depends on it, and otherwise.
_BUDGET_FLUSH_SECONDS, _FLUSH_SECONDS = 1.0, 5.0

# Without Temporal, an exit must not wait longer for the last flushes.
_CLOSE_SECONDS = 5.0

# Flushes that Temporal has and the ledger may not have added yet: it has, when this many more were sent.
_MAX_UNSEEN = 60

_LedgerKey = tuple[str, str]


def today() -> str:
    """Returns the day that counts now, in UTC, as YYYY-MM-DD."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


@dataclass
class _Ledger:
    """What this process has for one ledger. `due`: when it is flushed next, by the event loop's clock.

    `pending` was sent, and Temporal may have it: it is sent again as it is before anything new. `sent` are the latest
    flushes that Temporal has; the ledger may not have added them yet. `sequence` is the number of the last flush.
    """

    collected: dict[str, DayUsage] = field(default_factory=dict)
    pending: UsageFlush | None = None
    sent: deque[UsageFlush] = field(default_factory=lambda: deque(maxlen=_MAX_UNSEEN))
    sequence: int = 0
    is_failing: bool = False
    due: float = float("inf")
    due_earlier: asyncio.Event = field(default_factory=asyncio.Event)

    def flush_within(self, seconds: float) -> None:
        """Flushes after `seconds` at the latest."""
        due = asyncio.get_running_loop().time() + seconds
        if due < self.due:
            self.due = due
            self.due_earlier.set()

    async def wait_until_due(self) -> None:
        """Returns when the next flush is due."""
        while (remaining := self.due - asyncio.get_running_loop().time()) > 0:
            self.due_earlier.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.due_earlier.wait(), remaining)
        self.due = float("inf")

    @property
    def has_work(self) -> bool:
        return bool(self.collected) or self.pending is not None

    def next_flush(self, process: str) -> UsageFlush:
        if self.pending is None:
            self.sequence += 1
            self.pending = UsageFlush(process=process, sequence=self.sequence, days=self.collected)
            self.collected = {}
        return self.pending

    def unseen(self, day: str, sequence: int) -> list[DayUsage]:
        """The parts of a day that are in no flush up to `sequence`."""
        flushes = [*self.sent, *([self.pending] if self.pending else [])]
        parts = [flush.days for flush in flushes if flush.sequence > sequence]
        return [days[day] for days in (*parts, self.collected) if day in days]


class UsageMeter:
    """Writes each ledger at most once a second, and every 5 s for tenants without a budget.

    A process that is killed loses what it collected since. What Temporal did not confirm is sent again under the same
    number, which the ledger counts once.
    """

    def __init__(self, ledgers: UsageLedgerClient, access: AccessDirectory) -> None:
        self._client = ledgers
        self._access = access
        self.process = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._ledgers: defaultdict[_LedgerKey, _Ledger] = defaultdict(_Ledger)
        self._flushes: dict[_LedgerKey, asyncio.Task[None]] = {}

    def record(self, tenant: str, key_id: str | None, agent: str, totals: UsageTotals) -> None:
        """Counts calls that have ended. Returns at once; the ledger is written in the background."""
        count_usage(agent, tenant, totals.input_tokens, totals.output_tokens, totals.micro_usd)
        owners = self._access.latest.quota_owners(tenant, key_id)
        budgeted = [owner for owner in owners if owner.quotas.budget is not None]
        keys = {owner.name: totals for owner in budgeted if owner.key_id is not None}
        day = today()
        ledger_key = (tenant, month_of(day))
        ledger = self._ledgers[ledger_key]
        ledger.collected[day] = ledger.collected.get(day, DayUsage()).add(DayUsage(agents={agent: totals}, keys=keys))
        ledger.flush_within(_BUDGET_FLUSH_SECONDS if budgeted else _FLUSH_SECONDS)
        if ledger_key not in self._flushes:
            self._flushes[ledger_key] = asyncio.create_task(self._flush_when_due(ledger_key))

    def unseen(self, tenant: str, reading: LedgerReading, key_id: str | None) -> UsageTotals:
        """Returns what this process has counted on the reading's day and the reading lacks: of a key, or in all."""
        ledger = self._ledgers.get((tenant, month_of(reading.day)))
        parts = ledger.unseen(reading.day, reading.sequence) if ledger else []
        return sum_usage(part.total(key_id) for part in parts)

    async def aclose(self) -> None:
        """Writes what is left, for up to 5 s."""
        flushes, self._flushes = list(self._flushes.values()), {}
        for task in flushes:
            task.cancel()
        await asyncio.gather(*flushes, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await gather_bounded(self._flush_all, [key for key, one in self._ledgers.items() if one.has_work])
        except TimeoutError:
            log.warning("the usage of the last seconds is not recorded, because Temporal does not answer")

    async def _flush_all(self, ledger_key: _LedgerKey) -> None:
        while self._ledgers[ledger_key].has_work and await self._flush(ledger_key):
            pass

    async def _flush_when_due(self, ledger_key: _LedgerKey) -> None:
        ledger = self._ledgers[ledger_key]
        while ledger.has_work:
            await ledger.wait_until_due()
            if not await self._flush(ledger_key):
                ledger.flush_within(_BUDGET_FLUSH_SECONDS)
        del self._flushes[ledger_key]  # Without an await since the check: `record` starts the next one.
        for one in [one for one, ledger in self._ledgers.items() if one[1] < ledger_key[1] and not ledger.has_work]:
            del self._ledgers[one]

    async def _flush(self, ledger_key: _LedgerKey) -> bool:
        """Sends the next flush. Returns False if that failed, which is logged once."""
        tenant, month = ledger_key
        ledger = self._ledgers[ledger_key]
        flush = ledger.next_flush(self.process)
        try:
            # A flush starts a missing ledger. It must not do so for a tenant whose data are being erased.
            if not (await self._access.load()).is_erasing(tenant):
                await self._client.record(tenant, month, flush)
        except Exception as error:
            if not ledger.is_failing:
                log.warning("usage cannot be recorded yet", tenant=tenant, error=repr(error)[:200])
            ledger.is_failing = True
            return False
        ledger.is_failing = False
        ledger.sent.append(flush)
        ledger.pending = None
        return True
