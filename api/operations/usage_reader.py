"""Reads what agents used, from the tenants' ledgers."""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from pydantic import Field

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.quotas.budgets import Budgets, next_midnight
from sevenfold.adapters.quotas.usage_ledger import UsageLedgerClient
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.contracts.access.quotas import Budget, OwnerKind, QuotaOwner
from sevenfold.contracts.agents.config import MICRO_USD
from sevenfold.contracts.agents.usage import UsageTotals, sum_usage
from sevenfold.contracts.payload import Payload


class UsageKey(StrEnum):
    """What usage is summed by."""

    DAY = "day"
    AGENT = "agent"
    TENANT = "tenant"


class UsageFigures(Payload):
    """Sums of calls. Failed calls count too, with what they reported."""

    calls: int
    failed_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float = Field(description="By the agents' prices in sevenfold.toml, at the time of each call.")


class _Group(Payload):
    day: date | None = None
    agent: str | None = None
    tenant: str | None = None


class UsageRow(UsageFigures, _Group):
    """The sums of one day, agent and tenant, as far as they are summed by them."""


class BudgetState(Payload):
    """A budget of today, UTC, and what is used of it."""

    owner: OwnerKind
    name: str = Field(description="Of the tenant, or the id of the key.")
    budget: Budget
    used_tokens: int
    used_usd: float
    resets_at: datetime


class UsageReport(Payload):
    """Usage from the first day to the last, both included, UTC."""

    first: date = Field(alias="from")
    last: date = Field(alias="to")
    items: list[UsageRow]
    total: UsageFigures
    budgets: list[BudgetState]


_GroupKey = tuple[str | None, str | None, str | None]


@dataclass(frozen=True)
class UsageQuery:
    """Which days, summed by what, and of which agent (None: of all)."""

    first: date
    last: date
    by: Sequence[UsageKey]
    agent: str | None


@dataclass(frozen=True)
class UsageReader:
    """Reads ledgers. What other processes count is in them after 5 s, or 1 s for a tenant with a budget."""

    ledgers: UsageLedgerClient
    budgets: Budgets
    access: AccessDirectory
    shared: SharedAnswers

    async def load(self, tenant: str | None, key_id: str | None, query: UsageQuery) -> UsageReport:
        """Returns the usage of a tenant, at most a second old; None: of all. `key_id`: whose budget is shown beside
        the tenant's. Raises RPCError.
        """
        key = ("usage", tenant, key_id, query)
        return await self.shared.get(key, lambda: self._load(tenant, key_id, query))

    async def _load(self, tenant: str | None, key_id: str | None, query: UsageQuery) -> UsageReport:
        snapshot = await self.access.load()
        tenants = [tenant] if tenant is not None else await self.ledgers.list_tenants()

        async def read(name: str) -> list[tuple[_GroupKey, UsageTotals]]:
            days = await self.ledgers.read_days(name, query.first, query.last)
            return [
                (_group_key(query.by, day, one, name), totals)
                for day, usage in days.items()
                for one, totals in usage.agents.items()
                if query.agent in (None, one)
            ]

        sums: defaultdict[_GroupKey, UsageTotals] = defaultdict(UsageTotals)
        for found in await gather_bounded(read, tenants):
            for group, totals in found:
                sums[group] = sums[group].add(totals)
        owners = [owner for name in tenants for owner in snapshot.quota_owners(name, key_id if tenant else None)]
        return UsageReport(
            first=query.first,
            last=query.last,
            items=[_row(group, sums[group]) for group in sorted(sums, key=lambda one: tuple(map(str, one)))],
            total=UsageFigures(**_figures(sum_usage(sums.values()))),
            budgets=await gather_bounded(self._load_budget, [owner for owner in owners if owner.quotas.budget]),
        )

    async def _load_budget(self, owner: QuotaOwner) -> BudgetState:
        used = await self.budgets.used(owner)
        return BudgetState(
            owner=owner.kind,
            name=owner.name,
            budget=owner.quotas.budget or Budget(),
            used_tokens=used.tokens,
            used_usd=used.micro_usd / MICRO_USD,
            resets_at=next_midnight(),
        )


def to_csv(report: UsageReport, by: Sequence[UsageKey]) -> str:
    """Returns the rows as CSV (RFC 4180) with a header."""
    columns = [*dict.fromkeys(by), "calls", "failedCalls", "inputTokens", "outputTokens", "costUsd"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(row.model_dump(mode="json", by_alias=True) for row in report.items)
    return text.getvalue()


def _group_key(by: Sequence[UsageKey], day: str, agent: str, tenant: str) -> _GroupKey:
    return (
        day if UsageKey.DAY in by else None,
        agent if UsageKey.AGENT in by else None,
        tenant if UsageKey.TENANT in by else None,
    )


def _row(group: _GroupKey, totals: UsageTotals) -> UsageRow:
    day, agent, tenant = group
    return UsageRow(day=date.fromisoformat(day) if day else None, agent=agent, tenant=tenant, **_figures(totals))


def _figures(totals: UsageTotals) -> dict[str, float]:
    return {
        "calls": totals.calls,
        "failed_calls": totals.failed_calls,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "cost_usd": totals.micro_usd / MICRO_USD,
    }
