"""Publishes an event about a run that could not be published at once."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from sevenfold.activities.events.publish import EventPublication
from sevenfold.contracts import workflow_types
from sevenfold.contracts.events.event_driven import PublishedEvent, PublishEventsInput

_ATTEMPT_TIMEOUT = timedelta(seconds=30)
_TIMEOUT = timedelta(hours=24)


@workflow.defn(name=workflow_types.INTERACTION_EVENT)
class InteractionEvent:
    """Waits, for a day at most, until the tenant's rate of events permits the event. The run continues meanwhile."""

    @workflow.run
    async def run(self, publication: PublishEventsInput) -> list[PublishedEvent]:
        """Returns the ids of the event."""
        return await workflow.execute_activity_method(
            EventPublication.publish_events,
            publication,
            start_to_close_timeout=_ATTEMPT_TIMEOUT,
            schedule_to_close_timeout=_TIMEOUT,
            retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
        )
