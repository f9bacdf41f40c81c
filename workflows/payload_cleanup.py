"""Upkeep, once a day by a Temporal Schedule: stored payloads go when the last run that may need them has gone."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from sevenfold.activities.payload_cleanup import PayloadCleaner
from sevenfold.contracts.upkeep import CleanupResult


@workflow.defn(name="PayloadCleanup")
class PayloadCleanup:
    """Removes expired payloads."""

    @workflow.run
    async def run(self) -> CleanupResult:
        """How many were removed. What fails today is done tomorrow."""
        return await workflow.execute_activity_method(
            PayloadCleaner.remove_expired_payloads,
            start_to_close_timeout=timedelta(hours=1),
            retry_policy=RetryPolicy(maximum_attempts=3),
        )
