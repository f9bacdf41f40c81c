"""Builds the quotas of a process."""

from dataclasses import dataclass

from temporalio.client import Client

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.quotas.budgets import Budgets
from sevenfold.adapters.quotas.open_work import OpenWork
from sevenfold.adapters.quotas.rates import RateQuotas
from sevenfold.adapters.quotas.starts import StartQuotas
from sevenfold.adapters.quotas.stored_bytes import StoredBytes
from sevenfold.adapters.quotas.usage_ledger import UsageLedgerClient
from sevenfold.adapters.quotas.usage_meter import UsageMeter


@dataclass(frozen=True)
class ProcessQuotas:
    """Quotas and usage, as the API, the worker and the connector of one process share them."""

    rates: RateQuotas
    ledgers: UsageLedgerClient
    meter: UsageMeter
    budgets: Budgets
    stored_bytes: StoredBytes
    starts: StartQuotas

    async def aclose(self) -> None:
        """Writes the usage that is not written yet, and gives up the leases of rates."""
        await self.meter.aclose()
        await self.rates.aclose()


def build_quotas(client: Client, task_queue: str, access: AccessDirectory) -> ProcessQuotas:
    """Builds them over a client."""
    ledgers = UsageLedgerClient(client, task_queue)
    meter = UsageMeter(ledgers, access)
    budgets = Budgets(access, ledgers, meter)
    stored_bytes = StoredBytes(client)
    starts = StartQuotas(access, budgets, stored_bytes, OpenWork(client))
    return ProcessQuotas(RateQuotas(client, task_queue), ledgers, meter, budgets, stored_bytes, starts)
