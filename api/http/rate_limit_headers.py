"""The headers of draft-ietf-httpapi-ratelimit-headers."""

import math

from sevenfold.contracts.agents.usage import ExceededQuota


def rate_limit_headers(quota: ExceededQuota, retry_after: float | None) -> dict[str, str]:
    """Returns the headers of a refusal. Quotas without a window, such as open runs, hold at the same time."""
    seconds = max(1, math.ceil(retry_after or 1.0))
    window = "" if quota.window is None else f";w={quota.window}"
    return {
        "RateLimit-Policy": f'"{quota.policy}";q={quota.limit}{window};qu="{quota.unit}"',
        "RateLimit": f'"{quota.policy}";r={quota.remaining};t={seconds}',
    }
