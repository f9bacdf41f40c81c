"""The problem of a quota that is used up."""

import math

from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field
from sevenfold.api.http.rate_limit_headers import rate_limit_headers


def from_exceeded_quota(error: QuotaExceededError) -> ProblemError:
    """Returns the 429, or the 422 of a job that can never fit."""
    policies = [error.quota.policy]
    if error.retry_after is None:
        problem = invalid_field("/data", str(error))
        problem.members["violated_policies"] = policies
        return problem
    return ProblemError(
        ProblemType.QUOTA_EXCEEDED,
        str(error),
        retry_after=max(1, math.ceil(error.retry_after)),
        headers=rate_limit_headers(error.quota, error.retry_after),
        violated_policies=policies,
    )
