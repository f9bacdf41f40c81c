"""Removes stored payloads that no run needs any more."""

from datetime import timedelta

from temporalio import activity
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from sevenfold.adapters.payloads.stores import expiring_stores
from sevenfold.contracts.operations.payload_cleanup import CleanupResult

# A payload is stored when its run starts, but the retention counts from the run's end: one day at most for the run,
# and one for clock differences, pauses and late retries.
_BEYOND_RETENTION = timedelta(days=2)


class PayloadCleaner:
    """Removes expired payloads from the stores of the worker's client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn(name="remove_expired_payloads")
    async def remove_expired_payloads(self) -> CleanupResult:
        """Removes payloads older than the namespace's retention plus two days. The retention is read from the
        namespace, so that no setting can contradict it.
        """
        namespace = await self._client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=self._client.namespace)
        )
        age = namespace.config.workflow_execution_retention_ttl.ToTimedelta() + _BEYOND_RETENTION
        stores = expiring_stores(self._client.data_converter)
        removed = [await store.remove_older_than(age, self._client.namespace) for store in stores]
        return CleanupResult(removed_payloads=sum(removed))
