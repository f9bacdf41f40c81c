"""The problem of a quota that is used up, with the headers of draft-ietf-httpapi-ratelimit-headers."""

import math

from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field
from sevenfold.contracts.access.quotas import QuotaName
from sevenfold.contracts.agents.config import MICRO_USD


def from_exceeded_quota(error: QuotaExceededError) -> ProblemError:
    """Returns the 429, or the 422 of a job that can never fit. Quotas without a window, such as open runs, hold at
    the same time.
    """
    if error.retry_after is None:
        problem = invalid_field("/data", str(error))
        problem.members["violated_policies"] = [error.policy]
        return problem
    # The headers permit integers only.
    limit, unit = (
        (round(error.limit * MICRO_USD), "micro-usd")
        if error.quota is QuotaName.USD
        else (
            round(error.limit),
            error.quota,
        )
    )
    seconds = max(1, math.ceil(error.retry_after))
    window = "" if error.window is None else f";w={error.window}"
    return ProblemError(
        ProblemType.QUOTA_EXCEEDED,
        str(error),
        retry_after=seconds,
        headers={
            "RateLimit-Policy": f'"{error.policy}";q={limit}{window};qu="{unit}"',
            "RateLimit": f'"{error.policy}";r={error.remaining};t={seconds}',
        },
        violated_policies=[error.policy],
    )
