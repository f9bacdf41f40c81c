"""What the attempts of a run have used, and what the run may use."""

from sevenfold.contracts.agent import Usage
from sevenfold.contracts.agent_config import Price
from sevenfold.contracts.errors import RunLimitReached
from sevenfold.contracts.runs import RunLimits
from sevenfold.contracts.usage import NO_USAGE, UsageTotals, call_totals


class Spending:
    """The usage of one attempt, after `prior` of earlier ones. `limits`: of the whole run; None without any."""

    def __init__(self, price: Price | None, limits: RunLimits | None = None, prior: UsageTotals = NO_USAGE) -> None:
        self._price = price
        self._limits = limits
        self._prior = prior

    def check(self, usage: Usage | None) -> None:
        """Raises RunLimitReached if nothing is left, with what the attempt has reported so far."""
        used = self._prior if usage is None else self._prior.add(self.totals(usage, failed=False))
        if self._limits is not None and self._limits.is_reached(used):
            raise RunLimitReached(f"{_describe(self._limits)} It was stopped at {used.tokens:,} tokens.", usage=usage)

    def totals(self, usage: Usage | None, *, failed: bool) -> UsageTotals:
        """Returns the attempt as a sum."""
        reported = usage or Usage()
        price = self._price or Price()
        micro_usd = price.micro_usd(reported.input_tokens, reported.output_tokens)
        return call_totals(reported, micro_usd, failed=failed)

    def sum(self, usage: Usage | None, *, failed: bool) -> UsageTotals:
        """Returns the sum of all attempts so far."""
        return self._prior.add(self.totals(usage, failed=failed))


def _describe(limits: RunLimits) -> str:
    parts = []
    if limits.max_tokens is not None:
        parts.append(f"{limits.max_tokens:,} tokens (maxTokens)")
    if limits.max_micro_usd is not None:
        parts.append(f"${limits.max_micro_usd / 1_000_000:,.6g} (maxCost)")
    return f"The run may use {' and '.join(parts)}."
