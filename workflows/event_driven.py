"""Pattern 3, event-driven: an event comes in, agents react, and what they derive is published."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.event_dispatch import EventDispatch
from activities.event_publication import BrokerPublication
from activities.run_control import RunControl
from contracts.agent import Reply
from contracts.calls import CancelRequest
from contracts.events import (
    DISPATCH,
    BrokerOrder,
    Dispatch,
    DispatchHead,
    EventInput,
    Lane,
    LaneEntry,
    OutboundRoute,
    ReactionOrder,
    Turn,
)
from contracts.identity import tenant_of, workflow_id
from contracts.runs import RunError, RunResult
from contracts.verdicts import Verdict
from workflows.agent_run import HEARTBEAT_TIMEOUT
from workflows.event_lane import TURN, leave_lanes
from workflows.failures import failure_of

_RETRIES = RetryPolicy(maximum_interval=timedelta(minutes=1))
# A broker that is away for longer makes the event a dead letter, which can be driven again.
_PUBLISHING = timedelta(hours=24)
_STARTING = timedelta(seconds=60)

# Whoever accepted the event enters its ordered lanes, a whole batch at once. One that was killed before it could is
# not waited for any longer.
_INTAKE_ENTERS = timedelta(seconds=30)


@workflow.defn
class EventDriven:
    """One event. Completes when all its reactions have begun and the brokers outside have it. Each reaction goes on
    by itself, and none waits for another. An event that goes in circles fails, and so is a dead letter.
    """

    @workflow.init
    def __init__(self, given: EventInput) -> None:
        self._event = given.event
        self._id = workflow.info().workflow_id
        self._turns: set[str] = set()
        # The lanes that its reactions take turns in; None until the subscriptions were asked.
        self._lanes: set[str] | None = None

    @workflow.run
    async def run(self, given: EventInput) -> RunResult:
        """How many reactions it called for."""
        dispatch = await workflow.execute_local_activity_method(
            EventDispatch.dispatch_event, given, start_to_close_timeout=_STARTING, retry_policy=_RETRIES
        )
        self._lanes = {lane.id for order in dispatch.in_turn for lane in order.lanes}
        await leave_lanes(sorted(self._turns - self._lanes), self._id)
        if dispatch.refused is not None:
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise failure_of(RunError(verdict=Verdict.EVENT_REFUSED, detail=dispatch.refused))
        if dispatch.reactions or dispatch.routes:
            head = DispatchHead(reactions=dispatch.reactions, routes=dispatch.routes)
            workflow.upsert_memo({DISPATCH: head})
        if dispatch.in_turn or dispatch.routes:
            await self._dispatch_on(dispatch)
        await workflow.wait_condition(workflow.all_handlers_finished)
        count = len(dispatch.reactions)
        reply = Reply(response=f"{count} reactions have begun.", data={"reactions": count})
        seconds = (workflow.now() - workflow.info().workflow_start_time).total_seconds()
        return RunResult(reply=reply, seconds=max(0.0, seconds))

    @workflow.signal(description="What has not begun yet never will, and the run ends as Canceled.")
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        info = workflow.info()
        await workflow.execute_local_activity_method(
            RunControl.request_cancellation,
            CancelRequest(workflow_id=info.workflow_id, workflow_run_id=info.run_id),
            schedule_to_close_timeout=timedelta(seconds=60),
        )

    @workflow.signal(name=TURN, description="It is this event's turn in a lane.")
    async def turn(self, lane: str) -> None:
        """Sent by the lane, again and again while the event is inside. It leaves a lane that none of its
        reactions uses: it was refused, or the subscription was removed after it was accepted.
        """
        self._turns.add(lane)
        if self._lanes is not None and lane not in self._lanes:
            await leave_lanes([lane], self._id)

    async def _dispatch_on(self, dispatch: Dispatch) -> None:
        workflow.set_current_details(
            f"{len(dispatch.in_turn)} reactions take turns with those to other events; "
            f"{len(dispatch.routes)} brokers are told."
        )
        reactions = [asyncio.create_task(self._react_in_turn(order)) for order in dispatch.in_turn]
        routes = [asyncio.create_task(self._publish(route)) for route in dispatch.routes]
        try:
            await workflow.wait([*reactions, *routes])
        except asyncio.CancelledError:
            for task in (*reactions, *routes):
                task.cancel()
            # each reaction that never begins still has to leave its lanes
            await asyncio.gather(*reactions, *routes, return_exceptions=True)
            raise
        await workflow.wait_condition(workflow.all_handlers_finished)
        for reaction in reactions:
            reaction.result()
        if reasons := [reason for route in routes if (reason := route.result())]:
            raise failure_of(RunError(verdict=Verdict.EVENT_REFUSED, detail=" ".join(reasons)))

    async def _react_in_turn(self, order: ReactionOrder) -> None:
        """The reaction leaves the lanes at its end; here they are left only if it never begins."""
        try:
            for lane in order.lanes:
                await self._wait_for_turn(lane, order)
            await workflow.execute_local_activity_method(
                EventDispatch.start_reaction,
                Turn(event=self._event, order=order),
                start_to_close_timeout=_STARTING,
                retry_policy=_RETRIES,
            )
        except (Exception, asyncio.CancelledError):
            await leave_lanes([lane.id for lane in order.lanes], self._id)
            raise

    async def _wait_for_turn(self, lane: Lane, order: ReactionOrder) -> None:
        if not (lane.ordered and await self._its_turn(lane, _INTAKE_ENTERS)):
            reaction = workflow_id(tenant_of(self._id), order.id)
            await workflow.execute_local_activity_method(
                EventDispatch.enter_lane,
                LaneEntry(lane=lane, event=self._id, reaction=reaction),
                start_to_close_timeout=_STARTING,
                retry_policy=_RETRIES,
            )
            await self._its_turn(lane, None)

    async def _its_turn(self, lane: Lane, patience: timedelta | None) -> bool:
        try:
            await workflow.wait_condition(lambda: lane.id in self._turns, timeout=patience)
        except TimeoutError:
            return False
        return True

    async def _publish(self, route: OutboundRoute) -> str | None:
        """None once the broker has it, else why it never will."""
        try:
            await workflow.execute_activity_method(
                BrokerPublication.publish_to_broker,
                BrokerOrder(event=self._event, route=route),
                task_queue=route.task_queue,
                schedule_to_close_timeout=_PUBLISHING,
                start_to_close_timeout=timedelta(minutes=2),
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=_RETRIES,
                summary=f"to {route.broker}: {route.to}",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return f"{route.broker} does not take it for {route.to}: {error.cause or error}"
        return None
