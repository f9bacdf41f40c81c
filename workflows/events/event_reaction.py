"""One subscription's reaction to one event: calls the agent and publishes the derived events."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from sevenfold.activities.events.publish import EventPublication
from sevenfold.contracts import workflow_types
from sevenfold.contracts.events.event_driven import PublishedEvent, PublishEventsInput, ReactionInput, ReactionResult
from sevenfold.contracts.identity import build_workflow_id, parse_tenant
from sevenfold.contracts.tracing import run_context
from sevenfold.workflows.events.derived_events import derive_events
from sevenfold.workflows.events.ordering import PING_SIGNAL, release_semaphores
from sevenfold.workflows.runs.agent_call import AgentRun


@workflow.defn(name=workflow_types.EVENT_REACTION)
class EventReaction:
    """A reaction fails alone: it becomes a dead letter, and the event's other reactions continue."""

    @workflow.init
    def __init__(self, reaction: ReactionInput) -> None:
        self._agent_run = AgentRun(reaction)

    @workflow.run
    async def run(self, reaction: ReactionInput) -> ReactionResult:
        """Returns the reply and the published events once the ingest has accepted them.

        Raises ApplicationError with an ErrorCode as its type; a cancelled run ends as Canceled.
        """
        try:
            result = await self._agent_run.run_and_finalize(self._react(reaction))
        except (Exception, asyncio.CancelledError):
            await self._release_semaphores(reaction)
            raise
        await self._release_semaphores(reaction)
        return result

    @workflow.signal(
        name=PING_SIGNAL,
        description="Changes nothing: the ordering semaphore checks that the reaction is still open.",
    )
    def ping(self) -> None:
        """Sent by the ordering semaphore."""

    async def _release_semaphores(self, reaction: ReactionInput) -> None:
        tenant = parse_tenant(workflow.info().workflow_id)
        await release_semaphores(
            [semaphore.id for semaphore in reaction.semaphores], build_workflow_id(tenant, reaction.event_id)
        )

    @workflow.signal(
        name="cancel", description="Cancels the reaction: the agent call is cancelled, and it ends as Canceled."
    )
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        await self._agent_run.cancel()

    async def _react(self, reaction: ReactionInput) -> ReactionResult:
        result = await self._agent_run.call_with_attempts(reaction.max_attempts)
        info = workflow.info()
        trace = run_context(reaction.request_context.traceparent, info.workflow_id, info.run_id)
        events = derive_events(reaction, result.reply, workflow.now(), trace)
        published: list[PublishedEvent] = []
        if events:
            published = await workflow.execute_activity_method(
                EventPublication.publish_events,
                PublishEventsInput(tenant=parse_tenant(workflow.info().workflow_id), events=events),
                start_to_close_timeout=timedelta(seconds=30),
                # The agent's result is kept for a day of failures; after that the reaction is a dead letter.
                schedule_to_close_timeout=timedelta(hours=24),
                retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
                summary=f"publish {', '.join(event.type for event in events[:5])}",
            )
        return ReactionResult(**dict(result), published=published)
