"""What the attempts of a run have used, and what the run may use."""

from collections.abc import Callable

from sevenfold.contracts.agents.config import MICRO_USD, Price
from sevenfold.contracts.agents.errors import RunLimitReached
from sevenfold.contracts.agents.interface import Usage
from sevenfold.contracts.agents.usage import NO_USAGE, UsageTotals, call_totals
from sevenfold.contracts.runs.run import RunLimits

_NO_PRICE, _NO_REPORT = Price(), Usage()


def _ignore(usage: UsageTotals) -> None:
    """Records nothing."""


class Spending:
    """The usage of one attempt, beside `others`: what else the run has used so far. `limits`: of the whole run; None
    without any. `record` gets what each report adds, so that budgets know a call while it runs.
    """

    def __init__(
        self,
        price: Price = _NO_PRICE,
        limits: RunLimits | None = None,
        others: Callable[[], UsageTotals] = lambda: NO_USAGE,
        record: Callable[[UsageTotals], None] = _ignore,
    ) -> None:
        self._price = price
        self._limits = limits
        self._others = others
        self._record = record
        self._recorded = NO_USAGE

    def report(self, usage: Usage) -> None:
        """Records what the attempt has used so far. Raises RunLimitReached if nothing is left."""
        tokens = self._price.micro_usd(usage.input_tokens, usage.output_tokens, calls=0)
        self._record_more(call_totals(usage, tokens, calls=0, failed_calls=0))
        self.check(usage)

    def finish(self, usage: Usage | None, *, failed: bool) -> None:
        """Records the rest of an attempt that has ended, and the call itself."""
        self._record_more(self.totals(usage, failed=failed))

    def _record_more(self, totals: UsageTotals) -> None:
        self._record(totals.subtract(self._recorded))
        self._recorded = totals

    def check(self, usage: Usage | None) -> None:
        """Raises RunLimitReached if nothing is left, with what the attempt has reported so far."""
        if self._limits is None:
            return
        used = self._others() if usage is None else self.sum(usage, failed=False)
        if self._limits.is_reached(used):
            raise RunLimitReached(f"{_describe(self._limits)} It was stopped at {_used(used)}.", usage=usage)

    def totals(self, usage: Usage | None, *, failed: bool) -> UsageTotals:
        """Returns the attempt as a sum."""
        reported = usage or _NO_REPORT
        micro_usd = self._price.micro_usd(reported.input_tokens, reported.output_tokens)
        return call_totals(reported, micro_usd, failed_calls=int(failed))

    def sum(self, usage: Usage | None, *, failed: bool) -> UsageTotals:
        """Returns the sum of all that the run has used so far."""
        return self._others().add(self.totals(usage, failed=failed))


def _describe(limits: RunLimits) -> str:
    parts = []
    if limits.max_tokens is not None:
        parts.append(f"{limits.max_tokens:,} tokens (maxTokens)")
    if limits.max_micro_usd is not None:
        parts.append(f"${limits.max_micro_usd / MICRO_USD:,.6g} (maxCost)")
    return f"The run may use {' and '.join(parts)}."


def _used(used: UsageTotals) -> str:
    return f"{used.tokens:,} tokens" + (f" and ${used.micro_usd / MICRO_USD:,.6g}" if used.micro_usd else "")
