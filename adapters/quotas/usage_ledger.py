"""Reads and writes the workflows `UsageLedger`."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.encoded import memo_names
from sevenfold.contracts.circuits import control_task_queue
from sevenfold.contracts.usage import (
    DAY_MEMO_PREFIX,
    KEPT_DAYS,
    DayUsage,
    LedgerState,
    UsageFlush,
    ledger_workflow_id,
    months_between,
)

_TIMEOUT = timedelta(seconds=5)


class UsageLedgerClient:
    """The ledgers of all tenants."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = control_task_queue(task_queue)

    async def record(self, tenant: str, month: str, flush: UsageFlush) -> None:
        """Adds a flush, and starts the ledger if there is none. Idempotent. Raises RPCError."""
        await self._client.start_workflow(
            "UsageLedger",
            LedgerState(month=month),
            id=ledger_workflow_id(tenant, month),
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="record",
            start_signal_args=[flush],
            static_summary=f"usage of {tenant} in {month}",
            rpc_timeout=_TIMEOUT,
        )

    async def read_day(self, tenant: str, day: date) -> DayUsage:
        """Returns a tenant's usage on one day, as far as ledgers have it. Raises RPCError."""
        return (await self.read_days(tenant, day, day)).get(f"{day:%Y-%m-%d}", DayUsage())

    async def read_days(self, tenant: str, first: date, last: date) -> Mapping[str, DayUsage]:
        """Returns a tenant's usage by day, without the days that have none. Raises RPCError."""
        today = datetime.now(UTC).date()
        kept_from, kept_to = max(first, today - timedelta(days=KEPT_DAYS)), min(last, today + timedelta(days=1))

        async def read(month: str) -> Mapping[str, DayUsage]:
            return await self._read_month(tenant, month, f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}")

        months = await gather_bounded(read, months_between(kept_from, kept_to))
        return {day: usage for month in months for day, usage in month.items()}

    async def _read_month(self, tenant: str, month: str, first: str, last: str) -> Mapping[str, DayUsage]:
        handle = self._client.get_workflow_handle(ledger_workflow_id(tenant, month))
        try:
            ledger = await handle.describe(rpc_timeout=_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return {}
        if ledger.status is not WorkflowExecutionStatus.RUNNING:
            return {}
        days = [name.removeprefix(DAY_MEMO_PREFIX) for name in memo_names(ledger) if name.startswith(DAY_MEMO_PREFIX)]
        wanted = [day for day in days if first <= day <= last]
        found = await asyncio.gather(
            *(ledger.memo_value(f"{DAY_MEMO_PREFIX}{day}", DayUsage(), type_hint=DayUsage) for day in wanted)
        )
        return dict(zip(wanted, found, strict=True))
