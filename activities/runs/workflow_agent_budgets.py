"""What workflow agents use, whose calls pass through no activity of ours."""

from collections.abc import Mapping

from cachetools import TTLCache
from temporalio import activity

from sevenfold.activities.identity import current_tenant, current_workflow_id
from sevenfold.activities.runs.failures import to_application_error
from sevenfold.activities.runs.spending import Spending
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.quotas.budgets import Budgets
from sevenfold.adapters.quotas.usage_meter import UsageMeter
from sevenfold.contracts.agents.config import Price
from sevenfold.contracts.agents.errors import QuotaExceeded, RunLimitReached
from sevenfold.contracts.agents.usage import call_totals
from sevenfold.contracts.runs.calls import BudgetCheck, LimitCheck, WorkflowAgentUsage

# A workflow task that is done again records again: within its time-out, nearly always in the same process.
_REPEATED_WITHIN_SECONDS, _MAX_RECORDED = 60.0, 10_000


class WorkflowAgentBudgets:
    """Checks the budget before an attempt, and the run's limits at each report, and counts attempts. All are local
    activities.
    """

    def __init__(
        self, budgets: Budgets, meter: UsageMeter, access: AccessDirectory, prices: Mapping[str, Price]
    ) -> None:
        self._budgets = budgets
        self._meter = meter
        self._access = access
        self._prices = prices
        self._recorded: TTLCache[tuple[str, ...], bool] = TTLCache(_MAX_RECORDED, _REPEATED_WITHIN_SECONDS)

    @activity.defn(name="check_budget")
    async def check_budget(self, check: BudgetCheck) -> None:
        """Raises a non-retryable ApplicationError of the type QuotaExceeded if the budget is used up."""
        try:
            await self._budgets.check_call(current_tenant(), check.key_id)
        except QuotaExceeded as error:
            raise to_application_error(error, 0, final=True) from None

    @activity.defn(name="check_limits")
    async def check_limits(self, check: LimitCheck) -> None:
        """Raises a non-retryable ApplicationError of the type RunLimitReached if the run has used what it may."""
        price = self._prices.get(check.agent, Price())
        micro_usd = price.micro_usd(check.usage.input_tokens, check.usage.output_tokens, calls=check.attempts)
        used = call_totals(check.usage, micro_usd, calls=check.attempts, failed_calls=0)
        try:
            Spending(limits=check.limits, others=lambda: used).check(None)
        except RunLimitReached as error:
            raise to_application_error(error, check.attempts, final=True, usage=used) from None

    @activity.defn(name="record_usage")
    async def record_usage(self, used: WorkflowAgentUsage) -> None:
        """Counts an attempt. A repetition in this process counts once."""
        recorded = (current_workflow_id(), activity.info().workflow_run_id or "", str(used.attempt))
        if recorded in self._recorded:
            return
        self._recorded[recorded] = True
        await self._access.load()  # Which keys have budgets.
        price, tokens = self._prices.get(used.agent, Price()), used.usage
        micro_usd = price.micro_usd(tokens.input_tokens, tokens.output_tokens, calls=1)
        totals = call_totals(tokens, micro_usd, calls=1, failed_calls=int(used.has_failed))
        self._meter.record(current_tenant(), used.key_id, used.agent, totals)
