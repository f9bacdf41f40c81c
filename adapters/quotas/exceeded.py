"""The refusal that all quotas share."""

from sevenfold.contracts.access.quotas import QuotaName, QuotaOwner


class QuotaExceededError(Exception):
    """A quota is exceeded. The message names the quota and the next step.

    `limit` holds within `window` seconds, or at the same time if that is None; `remaining` of it is free, which is
    too little. `retry_after` is in seconds; None if no retry can succeed.
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
        self.policy = owner.policy(quota)
        self.quota = quota
        self.limit = limit
        self.window = window
        self.retry_after = retry_after
        self.remaining = remaining
