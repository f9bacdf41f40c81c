"""Daily cleanup, started by a Temporal Schedule: removes stored payloads that no run within the retention needs."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from sevenfold.activities.maintenance.payload_cleanup import PayloadCleaner
from sevenfold.contracts import workflow_types
from sevenfold.contracts.operations.payload_cleanup import CleanupResult


@workflow.defn(name=workflow_types.PAYLOAD_CLEANUP)
class PayloadCleanup:
    """Removes expired payloads."""

    @workflow.run
    async def run(self) -> CleanupResult:
        """Returns the number of removed payloads. A failed cleanup is repeated the next day."""
        return await workflow.execute_activity_method(
            PayloadCleaner.remove_expired_payloads,
            start_to_close_timeout=timedelta(hours=1),
            retry_policy=RetryPolicy(maximum_attempts=3),
        )
