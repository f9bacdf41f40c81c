"""The headers of draft-ietf-httpapi-ratelimit-headers."""

from sevenfold.contracts.agents.usage import ExceededQuota


def rate_limit_headers(quota: ExceededQuota, seconds: int) -> dict[str, str]:
    """Returns the headers of a refusal, after which a client waits for `seconds`. Quotas without a window, such as
    open runs, hold at the same time.
    """
    window = "" if quota.window is None else f";w={quota.window}"
    return {
        "RateLimit-Policy": f'"{quota.policy}";q={quota.limit}{window};qu="{quota.unit}"',
        "RateLimit": f'"{quota.policy}";r={quota.remaining};t={seconds}',
    }
