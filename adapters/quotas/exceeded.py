"""The refusal that all quotas share."""

from sevenfold.contracts.access.quotas import QuotaName, QuotaOwner
from sevenfold.contracts.agents.config import MICRO_USD
from sevenfold.contracts.agents.usage import ExceededQuota


class QuotaExceededError(Exception):
    """A quota is exceeded. The message names the quota and the next step.

    `limit` and `remaining`: see `ExceededQuota`; a limit of money is in US dollars. `retry_after` is in seconds; None
    if no retry can succeed.
    """

    def __init__(
        self,
        owner: QuotaOwner,
        quota: QuotaName,
        limit: float,
        detail: str,
        *,
        retry_after: float | None,
        window: int | None = None,
        remaining: int = 0,
    ) -> None:
        super().__init__(detail)
        is_money = quota is QuotaName.USD
        self.retry_after = retry_after
        self.quota = ExceededQuota(
            policy=owner.policy(quota),
            limit=round(limit * MICRO_USD) if is_money else round(limit),
            unit="micro-usd" if is_money else quota,
            window=window,
            remaining=remaining,
        )
