"""The suite of quotas: `/query` with every quota and a budget beside `/query` without, and what the usage costs."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle

from bench.keys import KEYS_EACH, TENANTS, TIMES, ask_in_turn
from bench.sevenfold import CONFIG, Ports, Sevenfold, run_sevenfold
from bench.suite import Aim, Suite
from sevenfold.adapters.quotas.usage_meter import today
from sevenfold.contracts.access.api_keys import NewKey, generate_key
from sevenfold.contracts.agents.usage import ledger_workflow_id, month_of

_SECONDS, _IN_FLIGHT = 10.0, 10
_QUOTAS = (
    'rate = "100000/s"\nevents = "100000/s"\nopen_runs = 100000\nstreams = 10000\nqueued_items = 1000000\n'
    "budget = {tokens = 1000000000, usd = 1000}\n"
)


async def _quotas(sevenfold: Sevenfold, work: Path) -> list[float]:
    keys = {f"tenant-{number}": [generate_key() for _ in range(KEYS_EACH)] for number in range(TENANTS)}
    tenant = f"tenant-{TENANTS // 2}"
    config = work / "quotas.toml"
    sections = (_section(name, own) for name, own in keys.items())
    config.write_text(CONFIG + "\n[agents.priced]\nkind = 'builtin'\nprice = {input = 1}\n" + "".join(sections))
    data = work / f"quotas-{time.monotonic_ns()}"
    async with run_sevenfold(work, data, Ports.free(), {"SEVENFOLD_CONFIG": str(config)}) as limited:
        limited.http_client.headers = f"Authorization: Bearer {keys[tenant][0].text}\r\n"
        without, with_quotas = await ask_in_turn(sevenfold, limited)
        signals = await _signals_per_second(limited, tenant)
    middle, limited_middle = statistics.median(without), statistics.median(with_quotas)
    return [limited_middle / middle, middle, limited_middle, signals]


def _section(tenant: str, keys: list[NewKey]) -> str:
    sections = [f"\n[tenants.{tenant}]\n{_QUOTAS}subscriptions = 100\nstored_bytes = 1000000000000\n"]
    for key in keys:
        scopes = '["runs:read", "runs:write"]'
        sections.append(
            f'[[tenants.{tenant}.keys]]\nid = "{key.key_id}"\nhash = "{key.hash}"\nscopes = {scopes}\n{_QUOTAS}'
        )
    return "".join(sections)


async def _signals_per_second(limited: Sevenfold, tenant: str) -> float:
    """The signals to the tenant's ledger under constant load."""
    client = await Client.connect(f"127.0.0.1:{limited.ports.temporal}")
    ledger = client.get_workflow_handle(ledger_workflow_id(tenant, month_of(today())))
    end = time.monotonic() + _SECONDS

    async def ask() -> None:
        while time.monotonic() < end:
            await limited.query()

    before = await _count_signals(ledger)
    await asyncio.gather(*(ask() for _ in range(_IN_FLIGHT)))
    return (await _count_signals(ledger) - before) / _SECONDS


async def _count_signals(ledger: WorkflowHandle[Any, Any]) -> int:
    signalled = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    return sum([event.event_type == signalled async for event in ledger.fetch_history_events()])


QUOTAS = Suite(
    "quotas",
    [
        Aim(
            f"`/query` with quotas and budgets of {TENANTS * KEYS_EACH:,} keys, {TENANTS} tenants against none, p50",
            TIMES,
            1.05,
            digits=3,
        ),
        Aim("p50 of `/query` without quotas", " ms", digits=2),
        Aim("p50 of `/query` with quotas", " ms", digits=2),
        Aim("signals to the tenant's ledger under load", "/s", 1.0, digits=2),
    ],
    _quotas,
)
