"""The problem of a quota that is used up."""

from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.api.http.problems import ProblemError, ProblemType, add_quota, invalid_field


def from_exceeded_quota(error: QuotaExceededError) -> ProblemError:
    """Returns the 429, or the 422 of a job that can never fit."""
    if error.retry_after is None:
        problem = invalid_field("/data", str(error))
    else:
        problem = ProblemError(ProblemType.QUOTA_EXCEEDED, str(error), retry_after=error.retry_after)
    add_quota(problem, error.quota)
    return problem
