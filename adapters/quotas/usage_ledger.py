"""Reads and writes the workflows `UsageLedger`."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.encoded import memo_names
from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.circuits import control_task_queue
from sevenfold.contracts.agents.usage import (
    DAY_MEMO_PREFIX,
    FLUSHES_MEMO,
    KEPT_DAYS,
    NO_USAGE,
    DayUsage,
    LastFlush,
    LedgerState,
    UsageFlush,
    UsageTotals,
    key_memo,
    ledger_workflow_id,
    month_of,
    months_between,
)
from sevenfold.contracts.identity import parse_tenant

_TIMEOUT = timedelta(seconds=5)


@dataclass(frozen=True)
class LedgerReading:
    """A tenant's usage on a day, with the flushes of one process up to `sequence`."""

    day: str
    usage: DayUsage
    sequence: int


class UsageLedgerClient:
    """The ledgers of all tenants."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = control_task_queue(task_queue)

    async def record(self, tenant: str, month: str, flush: UsageFlush) -> None:
        """Adds a flush, and starts the ledger if there is none. Idempotent. Raises RPCError."""
        await self._client.start_workflow(
            workflow_types.USAGE_LEDGER,
            LedgerState(month=month),
            id=ledger_workflow_id(tenant, month),
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="record",
            start_signal_args=[flush],
            static_summary=f"usage of {tenant} in {month}",
            rpc_timeout=_TIMEOUT,
        )

    async def list_tenants(self) -> list[str]:
        """Returns the tenants that have ledgers, removed ones too. Raises RPCError."""
        query = f"WorkflowType = '{workflow_types.USAGE_LEDGER}' AND ExecutionStatus = 'Running'"
        return sorted({parse_tenant(one.id) async for one in self._client.list_workflows(query, page_size=1_000)})

    async def read_today(self, tenant: str, day: str, process: str) -> "LedgerReading":
        """Returns what a ledger has of one day, and which of the process's flushes it has. Raises RPCError."""
        ledger = await self._describe(tenant, month_of(day))
        if ledger is None:
            return LedgerReading(day, DayUsage(), 0)
        flushes: dict[str, LastFlush] = await ledger.memo_value(FLUSHES_MEMO, {}, type_hint=dict[str, LastFlush])
        agents = await self._load_day(ledger, day)
        prefix = key_memo(day, "")
        names = [name for name in memo_names(ledger) if name.startswith(prefix)]
        keys = await asyncio.gather(*(ledger.memo_value(name, NO_USAGE, type_hint=UsageTotals) for name in names))
        by_key = {name.removeprefix(prefix): totals for name, totals in zip(names, keys, strict=True)}
        last = flushes.get(process)
        return LedgerReading(day, DayUsage(agents=agents.agents, keys=by_key), last.sequence if last else 0)

    async def read_days(self, tenant: str, first: date, last: date) -> Mapping[str, DayUsage]:
        """Returns a tenant's usage by day, without the days that have none. Raises RPCError."""
        today = datetime.now(UTC).date()
        kept_from, kept_to = max(first, today - timedelta(days=KEPT_DAYS)), min(last, today + timedelta(days=1))

        async def read(month: str) -> Mapping[str, DayUsage]:
            return await self._read_month(tenant, month, f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}")

        months = await gather_bounded(read, months_between(kept_from, kept_to))
        return {day: usage for month in months for day, usage in month.items()}

    async def _read_month(self, tenant: str, month: str, first: str, last: str) -> Mapping[str, DayUsage]:
        ledger = await self._describe(tenant, month)
        if ledger is None:
            return {}
        days = [name.removeprefix(DAY_MEMO_PREFIX) for name in memo_names(ledger) if name.startswith(DAY_MEMO_PREFIX)]
        wanted = [day for day in days if first <= day <= last]
        found = await asyncio.gather(*(self._load_day(ledger, day) for day in wanted))
        return dict(zip(wanted, found, strict=True))

    async def _load_day(self, ledger: WorkflowExecutionDescription, day: str) -> DayUsage:
        usage: DayUsage = await ledger.memo_value(f"{DAY_MEMO_PREFIX}{day}", DayUsage(), type_hint=DayUsage)
        return usage

    async def _describe(self, tenant: str, month: str) -> WorkflowExecutionDescription | None:
        """Returns a ledger; None if there is none."""
        handle = self._client.get_workflow_handle(ledger_workflow_id(tenant, month))
        try:
            ledger = await handle.describe(rpc_timeout=_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None
        return ledger if ledger.status is WorkflowExecutionStatus.RUNNING else None
