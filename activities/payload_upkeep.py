"""Removes stored payloads that no run can need any more."""

import asyncio
from datetime import timedelta

from temporalio import activity
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from adapters.payload_directory import PayloadDirectory
from contracts.upkeep import Removed

# A payload is stored when its run starts, and the retention counts from the run's end: a day at most for the run,
# and another for clocks, pauses and late retries.
_BEYOND_RETENTION = timedelta(days=2)


class PayloadUpkeep:
    """Holds the worker's client and its payload directory."""

    def __init__(self, client: Client, directory: PayloadDirectory) -> None:
        self._client = client
        self._directory = directory

    @activity.defn
    async def remove_expired_payloads(self) -> Removed:
        """Asks the namespace for its retention, so that no setting can disagree with it."""
        namespace = await self._client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=self._client.namespace)
        )
        retention = namespace.config.workflow_execution_retention_ttl.ToTimedelta()
        seconds = (retention + _BEYOND_RETENTION).total_seconds()
        return Removed(payloads=await asyncio.to_thread(self._directory.remove_older_than, seconds))
