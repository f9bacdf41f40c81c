"""Counts the attempts of workflow agents, whose calls pass through no activity."""

from collections.abc import Mapping

from temporalio import activity

from sevenfold.activities.identity import current_tenant
from sevenfold.adapters.quotas.usage_meter import UsageMeter
from sevenfold.contracts.agent_config import Price
from sevenfold.contracts.calls import WorkflowAgentUsage
from sevenfold.contracts.usage import UsageTotals


class UsageRecording:
    """Knows the agents' prices."""

    def __init__(self, meter: UsageMeter, prices: Mapping[str, Price]) -> None:
        self._meter = meter
        self._prices = prices

    @activity.defn(name="record_usage")
    async def record_usage(self, used: WorkflowAgentUsage) -> None:
        """Counts the attempts of one call (a local activity)."""
        price = self._prices.get(used.agent, Price())
        tokens, calls = used.usage, used.attempts
        self._meter.record(
            current_tenant(),
            used.key_id,
            used.agent,
            UsageTotals(
                calls=calls,
                failed_calls=calls if used.has_failed else calls - 1,
                input_tokens=tokens.input_tokens,
                output_tokens=tokens.output_tokens,
                micro_usd=price.micro_usd(tokens.input_tokens, tokens.output_tokens, calls=calls),
            ),
        )
