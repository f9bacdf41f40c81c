"""Pattern 3, event-driven: agents react to an event, and the gateway publishes the events that they derive."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from sevenfold.activities.events.dispatch import EventDispatch
from sevenfold.activities.events.publish import BrokerPublication
from sevenfold.activities.runs.run_control import RunControl
from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.interface import Reply
from sevenfold.contracts.events.event_driven import (
    DISPATCH_MEMO,
    Dispatch,
    DispatchSummary,
    EventInput,
    Grant,
    OutboundRoute,
    PublishToBrokerInput,
    ReactionSpec,
    SemaphoreRef,
    SemaphoreRequest,
)
from sevenfold.contracts.identity import build_workflow_id, parse_tenant
from sevenfold.contracts.runs.calls import CancelRequest
from sevenfold.contracts.runs.run import RunError, RunResult
from sevenfold.workflows.events.ordering import GRANT_SIGNAL, release_semaphores
from sevenfold.workflows.runs.agent_call import HEARTBEAT_TIMEOUT
from sevenfold.workflows.runs.failures import to_application_error

_RETRIES = RetryPolicy(maximum_interval=timedelta(minutes=1))
# If a broker is down for longer, the event becomes a dead letter, which can be redriven.
_PUBLISH_TIMEOUT = timedelta(hours=24)
_START_TIMEOUT = timedelta(seconds=60)
_SUMMARY_LENGTH = 200

# The ingest acquires the ordering semaphores for a whole batch. If it was killed before that, the event acquires them
# itself after this time.
_INGEST_ACQUIRE_TIMEOUT = timedelta(seconds=30)


@workflow.defn(name=workflow_types.EVENT_DRIVEN)
class EventDriven:
    """One event. Completes when all reactions are started and the brokers have confirmed the event.

    Reactions run independently of each other. An event that exceeds the loop guards fails, and so becomes a dead
    letter.
    """

    @workflow.init
    def __init__(self, event_input: EventInput) -> None:
        self._event = event_input.event
        self._trace = event_input.trace
        self._id = workflow.info().workflow_id
        self._grants: set[str] = set()
        # The ordering semaphores that its reactions use; None until the subscriptions are matched.
        self._semaphore_ids: set[str] | None = None

    @workflow.run
    async def run(self, event_input: EventInput) -> RunResult:
        """Returns the number of started reactions. Raises ApplicationError with the type `EventRefused`."""
        dispatch = await workflow.execute_local_activity_method(
            EventDispatch.dispatch_event, event_input, start_to_close_timeout=_START_TIMEOUT, retry_policy=_RETRIES
        )
        self._semaphore_ids = {semaphore.id for spec in dispatch.queued_reactions for semaphore in spec.semaphores}
        await release_semaphores(sorted(self._grants - self._semaphore_ids), self._id)
        if dispatch.refusal is not None:
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise to_application_error(RunError(code=ErrorCode.EVENT_REFUSED, detail=dispatch.refusal))
        if dispatch.reactions or dispatch.routes:
            head = DispatchSummary(reactions=dispatch.reactions, routes=dispatch.routes)
            workflow.upsert_memo({DISPATCH_MEMO: head})
        if dispatch.queued_reactions or dispatch.routes:
            await self._run_dispatch(dispatch)
        await workflow.wait_condition(workflow.all_handlers_finished)
        count = len(dispatch.reactions)
        reply = Reply(response=f"{count} reactions started.", data={"reactions": count})
        seconds = (workflow.now() - workflow.info().workflow_start_time).total_seconds()
        return RunResult(reply=reply, duration_seconds=max(0.0, seconds))

    @workflow.signal(
        name="cancel", description="Cancels the run: reactions that wait do not start, and it ends as Canceled."
    )
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        info = workflow.info()
        await workflow.execute_local_activity_method(
            RunControl.request_cancellation,
            CancelRequest(workflow_id=info.workflow_id, workflow_run_id=info.run_id),
            schedule_to_close_timeout=timedelta(seconds=60),
        )

    @workflow.signal(name=GRANT_SIGNAL, description="The event holds an ordering semaphore.")
    async def grant(self, semaphore_id: str) -> None:
        """Sent by the semaphore, repeatedly while this event holds it. The event releases a semaphore that none of
        its reactions uses: the event was refused, or the subscription was removed after the acceptance.
        """
        self._grants.add(semaphore_id)
        if self._semaphore_ids is not None and semaphore_id not in self._semaphore_ids:
            await release_semaphores([semaphore_id], self._id)

    async def _run_dispatch(self, dispatch: Dispatch) -> None:
        workflow.set_current_details(
            f"{len(dispatch.queued_reactions)} reactions wait for ordering semaphores; "
            f"{len(dispatch.routes)} broker routes are published."
        )
        reactions = [asyncio.create_task(self._start_when_granted(spec)) for spec in dispatch.queued_reactions]
        routes = [asyncio.create_task(self._publish(route)) for route in dispatch.routes]
        try:
            await workflow.wait([*reactions, *routes])
        except asyncio.CancelledError:
            for task in (*reactions, *routes):
                task.cancel()
            # Reactions that never start still have to release their semaphores.
            await asyncio.gather(*reactions, *routes, return_exceptions=True)
            raise
        await workflow.wait_condition(workflow.all_handlers_finished)
        for reaction in reactions:
            reaction.result()
        if reasons := [reason for route in routes if (reason := route.result())]:
            raise to_application_error(RunError(code=ErrorCode.EVENT_REFUSED, detail=" ".join(reasons)))

    async def _start_when_granted(self, spec: ReactionSpec) -> None:
        """Starts the reaction when it holds all semaphores. The reaction releases them when it ends; this method
        releases them only if the reaction never starts.
        """
        try:
            for semaphore in spec.semaphores:
                await self._wait_for_grant(semaphore, spec)
            await workflow.execute_local_activity_method(
                EventDispatch.start_reaction,
                Grant(event=self._event, spec=spec, traceparent=self._trace),
                start_to_close_timeout=_START_TIMEOUT,
                retry_policy=_RETRIES,
            )
        except (Exception, asyncio.CancelledError):
            await release_semaphores([semaphore.id for semaphore in spec.semaphores], self._id)
            raise

    async def _wait_for_grant(self, semaphore: SemaphoreRef, spec: ReactionSpec) -> None:
        if not (semaphore.is_ordered and await self._await_grant(semaphore, _INGEST_ACQUIRE_TIMEOUT)):
            reaction = build_workflow_id(parse_tenant(self._id), spec.id)
            await workflow.execute_local_activity_method(
                EventDispatch.acquire_semaphore,
                SemaphoreRequest(semaphore=semaphore, event_workflow_id=self._id, reaction_workflow_id=reaction),
                start_to_close_timeout=_START_TIMEOUT,
                retry_policy=_RETRIES,
            )
            await self._await_grant(semaphore, None)

    async def _await_grant(self, semaphore: SemaphoreRef, timeout: timedelta | None) -> bool:
        try:
            await workflow.wait_condition(lambda: semaphore.id in self._grants, timeout=timeout)
        except TimeoutError:
            return False
        return True

    async def _publish(self, route: OutboundRoute) -> str | None:
        """Returns None when the broker has confirmed the event, else the reason why it rejects the event."""
        try:
            await workflow.execute_activity_method(
                BrokerPublication.publish_to_broker,
                PublishToBrokerInput(event=self._event, route=route, traceparent=self._trace),
                task_queue=route.task_queue,
                schedule_to_close_timeout=_PUBLISH_TIMEOUT,
                start_to_close_timeout=timedelta(minutes=2),
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=_RETRIES,
                summary=f"to {route.broker}: {route.to}"[:_SUMMARY_LENGTH],
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return f"Broker {route.broker} rejects the event for {route.to}: {error.cause or error}"
        return None
