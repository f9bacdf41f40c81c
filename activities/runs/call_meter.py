"""Counts the calls of agents for the usage of their tenants."""

from collections.abc import Callable, Mapping
from functools import partial

from sevenfold.activities.runs.spending import Spending
from sevenfold.adapters.quotas.usage_meter import UsageMeter
from sevenfold.contracts.agents.config import Price
from sevenfold.contracts.agents.usage import UsageTotals
from sevenfold.contracts.runs.run import RunLimits


class CallMeter:
    """Knows the agents' prices. Each call counts once, when it ends; what its agent reports before counts at once."""

    def __init__(self, meter: UsageMeter, prices: Mapping[str, Price]) -> None:
        self._meter = meter
        self._prices = prices

    def spending(
        self,
        tenant: str,
        key_id: str | None,
        agent: str,
        limits: RunLimits | None,
        others: Callable[[], UsageTotals],
    ) -> Spending:
        """Returns the spending of a call that is about to start, beside `others` of its run."""
        record = partial(self._meter.record, tenant, key_id, agent)
        return Spending(self._prices.get(agent, Price()), limits, others, record)
