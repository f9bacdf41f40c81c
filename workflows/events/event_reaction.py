"""One subscription's reaction to one event: its agent is asked, and what it derives is published."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from sevenfold.activities.events.publish import EventPublication
from sevenfold.contracts.events import PublishedEvent, PublishEventsInput, ReactionInput, ReactionResult
from sevenfold.contracts.identity import build_workflow_id, parse_tenant
from sevenfold.workflows.events.derived_events import derive_events
from sevenfold.workflows.events.ordering import PING_SIGNAL, release_semaphores
from sevenfold.workflows.runs.agent_call import AgentRun


@workflow.defn(name="EventReaction")
class EventReaction:
    """Fails alone: a failed one is a dead letter, and the event's other reactions go on."""

    @workflow.init
    def __init__(self, reaction: ReactionInput) -> None:
        self._agent_run = AgentRun(reaction)

    @workflow.run
    async def run(self, reaction: ReactionInput) -> ReactionResult:
        """Completes once what it derived is accepted; fails with a verdict as the failure's type, or is cancelled."""
        try:
            result = await self._agent_run.run_and_finalize(self._react(reaction))
        except (Exception, asyncio.CancelledError):
            await self._release_semaphores(reaction)
            raise
        await self._release_semaphores(reaction)
        return result

    @workflow.signal(name=PING_SIGNAL, description="Changes nothing: its lane asks whether it still goes on.")
    def ping(self) -> None:
        """Sent by the lane."""

    async def _release_semaphores(self, reaction: ReactionInput) -> None:
        tenant = parse_tenant(workflow.info().workflow_id)
        await release_semaphores(
            [semaphore.id for semaphore in reaction.spec.semaphores], build_workflow_id(tenant, reaction.event_id)
        )

    @workflow.signal(name="cancel", description="Stops the reaction: the agent is told, and it ends as Canceled.")
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        await self._agent_run.cancel()

    async def _react(self, reaction: ReactionInput) -> ReactionResult:
        result = await self._agent_run.call_with_attempts(reaction.spec.max_attempts)
        events = derive_events(reaction, result.reply, workflow.now())
        published: list[PublishedEvent] = []
        if events:
            published = await workflow.execute_activity_method(
                EventPublication.publish_events,
                PublishEventsInput(tenant=parse_tenant(workflow.info().workflow_id), events=events),
                start_to_close_timeout=timedelta(seconds=30),
                # what an agent found is not thrown away while there is hope; after that the reaction is a dead letter
                schedule_to_close_timeout=timedelta(hours=24),
                retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
                summary=f"publishes {', '.join(event.type for event in events[:5])}",
            )
        return ReactionResult(**dict(result), published=published)
