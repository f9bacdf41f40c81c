"""Figures of an endpoint's deliveries, from their logs in Temporal."""

import math
from collections.abc import Sequence

from temporalio.client import Client

from sevenfold.api.http.listing import tenant_condition
from sevenfold.api.webhooks.endpoint_views import EndpointStatistics
from sevenfold.api.webhooks.views import load_log
from sevenfold.contracts import workflow_types
from sevenfold.contracts.webhooks.delivery import DELIVERY_LIST_ATTRIBUTES, DeliveryAttempt

_MAX_DELIVERIES = 200
_SUCCESS = range(200, 300)


def endpoint_condition(endpoint_id: str) -> str:
    """Returns the condition of a visibility query for one endpoint's deliveries."""
    (attribute,) = DELIVERY_LIST_ATTRIBUTES
    return f"{attribute} = '{endpoint_id}'"


async def load_statistics(client: Client, tenant: str, endpoint_id: str) -> EndpointStatistics:
    """Reads the latest deliveries. Visibility lags: the last second may be missing."""
    conditions = [
        f"WorkflowType = '{workflow_types.WEBHOOK_DELIVERY}'",
        *tenant_condition(tenant),
        endpoint_condition(endpoint_id),
    ]
    logs: dict[str, Sequence[DeliveryAttempt]] = {}
    async for execution in client.list_workflows(" AND ".join(conditions), limit=_MAX_DELIVERIES):
        if execution.id not in logs:  # A redelivered one is listed again, with a part of the same log.
            logs[execution.id] = (await load_log(execution)).attempts
    attempts = [attempt for log in logs.values() for attempt in log]
    succeeded = sum(attempt.status in _SUCCESS for attempt in attempts)
    answered = sorted(attempt.milliseconds for attempt in attempts if attempt.status is not None)
    return EndpointStatistics(
        deliveries=len(logs),
        attempts=len(attempts),
        succeeded=succeeded,
        success_rate=round(succeeded / len(attempts), 4) if attempts else None,
        p50_milliseconds=_quantile(answered, 0.5),
        p95_milliseconds=_quantile(answered, 0.95),
        last_attempt_at=max((attempt.at for attempt in attempts), default=None),
    )


def _quantile(ascending: Sequence[int], share: float) -> int | None:
    return ascending[math.ceil(share * len(ascending)) - 1] if ascending else None
