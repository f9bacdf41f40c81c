"""What agents used: state and changes of the workflow `UsageLedger`, one per tenant and month.

A ledger has a memo per day, and one per day and key, so that reading it needs no worker, and a change rewrites only
what it changes.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from sevenfold.contracts.agents.interface import Usage
from sevenfold.contracts.payload import Payload

# Retention of a day's usage.
KEPT_DAYS = 400

# Prefix of the memos that hold the sums of a day's agents; the day follows as YYYY-MM-DD.
DAY_MEMO_PREFIX = "day:"

# The memo with the number of each process's last flush, so that a process knows which of its own a ledger has.
FLUSHES_MEMO = "flushes"

# Sums by key are for the budgets of keys, which are checked on their day alone.
_DAYS_WITH_KEYS = 2

# Number of processes whose last flush is known, so that a repeated one is ignored.
_MAX_PROCESSES = 500


class UsageTotals(Payload):
    """Sums of calls. A call that failed, with what it reported, counts too."""

    calls: int = 0
    failed_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    micro_usd: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of both kinds."""
        return self.input_tokens + self.output_tokens

    def add(self, other: "UsageTotals") -> "UsageTotals":
        """Returns the sum."""
        return UsageTotals(**{name: getattr(self, name) + getattr(other, name) for name in UsageTotals.model_fields})

    def subtract(self, other: "UsageTotals") -> "UsageTotals":
        """Returns the difference, which may be negative."""
        return UsageTotals(**{name: getattr(self, name) - getattr(other, name) for name in UsageTotals.model_fields})


NO_USAGE = UsageTotals()


def sum_usage(parts: Iterable[UsageTotals]) -> UsageTotals:
    """Returns the sum."""
    total = NO_USAGE
    for one in parts:
        total = total.add(one)
    return total


def call_totals(usage: Usage, micro_usd: int, *, calls: int = 1, failed_calls: int) -> UsageTotals:
    """Returns the sums of calls that used this in all."""
    return UsageTotals(
        calls=calls,
        failed_calls=failed_calls,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        micro_usd=micro_usd,
    )


class ExceededQuota(Payload):
    """A quota that is used up. `limit` of `unit` hold within `window` seconds, or at the same time if that is None;
    `remaining` of them are free, which is too little.
    """

    policy: str
    limit: int
    unit: str
    window: int | None = None
    remaining: int = 0


class DayUsage(Payload):
    """A tenant's usage on one day, by agent; and by key, for keys that have a budget. Its memo has no keys."""

    agents: dict[str, UsageTotals] = {}
    keys: dict[str, UsageTotals] = {}

    def total(self, key_id: str | None = None) -> UsageTotals:
        """Returns the sum of a key, or of all agents."""
        if key_id is not None:
            return self.keys.get(key_id, NO_USAGE)
        return sum_usage(self.agents.values())

    def add(self, other: "DayUsage") -> "DayUsage":
        """Returns the sum."""
        return DayUsage(agents=_add(self.agents, other.agents), keys=_add(self.keys, other.keys))


def _add(first: dict[str, UsageTotals], second: dict[str, UsageTotals]) -> dict[str, UsageTotals]:
    return {**first, **{name: first.get(name, NO_USAGE).add(one) for name, one in second.items()}}


class UsageFlush(Payload):
    """What one process counted since its previous flush, by day (YYYY-MM-DD). A process numbers its flushes to one
    ledger from 1 and sends the next one only when Temporal has this one, so a repeated one has a known number.
    """

    process: str
    sequence: int
    days: dict[str, DayUsage]


class LastFlush(Payload):
    """The number of a process's last flush, and its latest day."""

    sequence: int
    day: str


class LedgerState(Payload):
    """Input of `UsageLedger`. `flushes`: the last flush of each process."""

    month: str
    days: dict[str, DayUsage] = {}
    flushes: dict[str, LastFlush] = {}

    @property
    def ends_at(self) -> datetime:
        """When the ledger ends: its last day was `KEPT_DAYS` ago."""
        first = datetime.strptime(self.month, "%Y-%m").replace(tzinfo=UTC)
        next_month = (first + timedelta(days=32)).replace(day=1)
        return next_month + timedelta(days=KEPT_DAYS)

    def record(self, flush: UsageFlush) -> "LedgerState":
        """Returns the state with the flush; the same state if it has it already."""
        known = self.flushes.get(flush.process)
        if known is not None and flush.sequence <= known.sequence:
            return self
        days = {**self.days, **{day: self.days.get(day, DayUsage()).add(one) for day, one in flush.days.items()}}
        latest = sorted(days)[-_DAYS_WITH_KEYS:]
        days = {
            day: one if day in latest or not one.keys else DayUsage(agents=one.agents) for day, one in days.items()
        }
        # A process that has sent nothing since the day before has ended, or has nothing that it may send again.
        flushes = {name: one for name, one in self.flushes.items() if name != flush.process and one.day in latest}
        flushes[flush.process] = LastFlush(sequence=flush.sequence, day=max(flush.days, default=latest[-1]))
        return LedgerState(month=self.month, days=days, flushes=dict([*flushes.items()][-_MAX_PROCESSES:]))


LedgerMemo = Payload | dict[str, LastFlush]


def key_memo(day: str, key_id: str) -> str:
    """Returns the name of the memo that holds the UsageTotals of a key on a day."""
    return f"key:{day}:{key_id}"


def ledger_memos(state: LedgerState) -> dict[str, LedgerMemo]:
    """Returns all memos."""
    memos: dict[str, LedgerMemo] = {FLUSHES_MEMO: state.flushes}
    for day, usage in state.days.items():
        memos[f"{DAY_MEMO_PREFIX}{day}"] = DayUsage(agents=usage.agents)
        memos |= {key_memo(day, key): totals for key, totals in usage.keys.items()}
    return memos


def changed_memos(before: LedgerState, after: LedgerState) -> dict[str, LedgerMemo | None]:
    """Returns the memos that differ; None for those that are gone."""
    old, new = ledger_memos(before), ledger_memos(after)
    changed: dict[str, LedgerMemo | None] = {name: one for name, one in new.items() if one != old.get(name)}
    return changed | dict.fromkeys(old.keys() - new.keys())


def month_of(day: str) -> str:
    """Returns the month (YYYY-MM) of a day (YYYY-MM-DD)."""
    return day[:7]


def months_between(first: date, last: date) -> list[str]:
    """Returns the months from the first day's to the last day's."""
    months = []
    month = first.replace(day=1)
    while month <= last:
        months.append(f"{month:%Y-%m}")
        month = (month + timedelta(days=32)).replace(day=1)
    return months


def ledger_workflow_id(tenant: str, month: str) -> str:
    """Returns the workflow id of a tenant's ledger of a month (YYYY-MM). It cannot be a public id."""
    return f"{tenant}:usage:{month}"


def is_ledger_id(workflow_id: str) -> bool:
    """Whether it is the workflow id of a ledger."""
    return workflow_id.partition(":")[2].startswith("usage:")
