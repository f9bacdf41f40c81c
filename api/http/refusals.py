"""Problems of changes that the workflows of tenants, subscriptions and webhook endpoints refuse."""

from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from sevenfold.adapters.temporal.updates import UpdateTimeoutError
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.contracts.access.tenant_registry import (
    KEY_EXISTS,
    KEY_MISSING,
    KEY_REPLACED,
    REGISTRY_FULL,
    TENANT_ERASED,
    TENANT_EXISTS,
    TENANT_MISSING,
)
from sevenfold.contracts.events.subscriptions import SUBSCRIPTION_EXISTS, SUBSCRIPTION_MISSING, SUBSCRIPTIONS_FULL
from sevenfold.contracts.webhooks.endpoints import (
    ENDPOINT_EXISTS,
    ENDPOINT_MISSING,
    ENDPOINT_TESTS_OPEN,
    ENDPOINTS_FULL,
)

_PROBLEM_OF_REFUSAL = {
    TENANT_EXISTS: ProblemType.TENANT_EXISTS,
    TENANT_ERASED: ProblemType.TENANT_ERASED,
    TENANT_MISSING: ProblemType.NOT_FOUND,
    KEY_EXISTS: ProblemType.TENANT_EXISTS,
    KEY_MISSING: ProblemType.NOT_FOUND,
    KEY_REPLACED: ProblemType.KEY_REPLACED,
    REGISTRY_FULL: ProblemType.REGISTRY_FULL,
    SUBSCRIPTION_EXISTS: ProblemType.SUBSCRIPTION_EXISTS,
    SUBSCRIPTION_MISSING: ProblemType.NOT_FOUND,
    SUBSCRIPTIONS_FULL: ProblemType.SUBSCRIPTIONS_FULL,
    ENDPOINT_EXISTS: ProblemType.ENDPOINT_EXISTS,
    ENDPOINT_MISSING: ProblemType.NOT_FOUND,
    ENDPOINTS_FULL: ProblemType.ENDPOINTS_FULL,
    ENDPOINT_TESTS_OPEN: ProblemType.ENDPOINT_TESTS_OPEN,
}


def find_refusal(error: WorkflowUpdateFailedError) -> ProblemError | None:
    """Returns the problem of a refused update; None if the workflow failed for another reason."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type in _PROBLEM_OF_REFUSAL:
        delay = cause.next_retry_delay
        retry_after = None if delay is None else delay.total_seconds()
        return ProblemError(_PROBLEM_OF_REFUSAL[cause.type], cause.message, retry_after=retry_after)
    return None


def unanswered(error: UpdateTimeoutError) -> ProblemError:
    """Returns the problem of an update that no worker has answered."""
    return ProblemError(
        ProblemType.TEMPORAL_UNAVAILABLE,
        f"No worker took the change within {error.limit.total_seconds():g} s; it may still be made. Start one with "
        "`sevenfold worker`, and look at the list before you send the request again.",
        retry_after=5,
    )
