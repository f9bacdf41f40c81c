"""Counts the calls of agents for the usage of their tenants."""

import asyncio
from collections.abc import Callable, Mapping

from sevenfold.activities.runs.running_call import CallInFlight
from sevenfold.activities.runs.spending import Spending
from sevenfold.adapters.quotas.usage_meter import UsageMeter
from sevenfold.contracts.agent import Reply
from sevenfold.contracts.agent_config import Price
from sevenfold.contracts.runs import RunLimits
from sevenfold.contracts.usage import UsageTotals


class CallMeter:
    """Knows the agents' prices. Each call is counted once, when it ends: with its reply's usage, or, if it failed or
    was cancelled, with what it had reported.
    """

    def __init__(self, meter: UsageMeter, prices: Mapping[str, Price]) -> None:
        self._meter = meter
        self._prices = prices

    def spending(self, agent: str, limits: RunLimits | None, others: Callable[[], UsageTotals]) -> Spending:
        """Returns the spending of a call that is about to start, beside `others` of its run."""
        return Spending(self._prices.get(agent, Price()), limits, others)

    def watch(self, call: CallInFlight, tenant: str, key_id: str | None, agent: str) -> None:
        """Counts the call when it ends."""

        def count(done: "asyncio.Task[Reply]") -> None:
            failed = done.cancelled() or done.exception() is not None
            self._meter.record(tenant, key_id, agent, call.spending.totals(call.usage, failed=failed))

        call.done.add_done_callback(count)
