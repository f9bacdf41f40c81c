"""The activities that call an agent.

A call is opened in a local activity, within the workflow task: an answer that comes at once costs no further
round through the server. A call that takes longer is not started anew: the very same one is taken over by the
regular activity `call_agent`, which heartbeats, is cancelled by push, and survives this process by a retry
elsewhere. See docs/decisions/inline-calls.md, "Opening a call".
"""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta

import structlog
from temporalio import activity
from temporalio.service import RPCError

from activities.call_in_flight import CallInFlight
from activities.calls_in_flight import CallsInFlight
from activities.failures import agent_error, application_error, in_time
from activities.identity import own_workflow_id
from activities.interruptions import raise_unless_cancel_requested
from adapters.agents.gate import Gate, Passage
from adapters.agents.registry import AgentRegistry
from adapters.disk_space import DiskSpace
from adapters.payload_stores import PayloadStoreError
from adapters.streams.live import LiveStreams
from adapters.streams.publisher import StreamPublisher
from contracts.agent import Agent
from contracts.calls import AgentCall, AgentOutcome, CallHeartbeat, FollowRequest, Opening
from contracts.streams import FOLLOWED, LIFE_STEP
from contracts.verdicts import AgentBusy, AgentUnavailable, CircuitOpen

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 1.0

# How long a call waits here for its turn, in seconds: where somebody waits for it, and where nobody does. Those that
# would have to wait longer hold no place of the worker meanwhile.
_PROMPT_PATIENCE = 1.0
_PATIENCE = 5.0


# Seconds between two looks whether a run is followed.
_FIRST_LOOK, _LONGEST_LOOK = 2.0, 30.0
_LOOK_TIMEOUT = timedelta(seconds=2)


class AgentCalls:
    """Holds the agents, the gate to them and the calls in flight of one worker process."""

    def __init__(
        self,
        agents: AgentRegistry,
        gate: Gate,
        streams: LiveStreams,
        disk: DiskSpace,
        *,
        opening: timedelta,
        max_calls: int,
    ) -> None:
        self._agents = agents
        self._gate = gate
        self._streams = streams
        self._disk = disk
        self._opening = opening.total_seconds()
        self._calls = CallsInFlight(max_calls)

    @activity.defn
    async def open_agent_call(self, call: AgentCall) -> Opening:
        """Starts the call and waits a moment for its reply (a local activity).

        Returns no outcome when the call goes on, laid down for `call_agent`, or when there is no room for it, or when
        the agent may not be called this very moment. One that is streamed always goes on: its readers are to have its
        words, and not to wait for its reply.
        """
        opening = (call.request.run_id, activity.info().workflow_run_id or "", str(call.request.attempt))
        if (answered := self._calls.answered(opening)) is not None:
            return Opening(outcome=await _outcome(answered, call))
        if self._opening == 0 or self._calls.full:
            return Opening()
        # A workflow task that could not be handed in is done again; its call may still be here.
        running = self._calls.take(call.request.run_id)
        if running is None:
            agent = self._agent(call, call.request.attempt)
            passage = await self._gate.open_for(call.agent)
            if passage is None:
                return Opening()
            running = self._start(call, agent, passage, call.request.attempt, held=True)
        try:
            done, _ = await asyncio.wait({running.done}, timeout=0 if call.streamed else self._opening)
        except asyncio.CancelledError:
            await running.cancel()
            raise
        if not done or self._disk.is_low:
            self._calls.leave(call.request.run_id, running)
            return Opening(begun=True)
        self._calls.keep_answered(opening, running)
        return Opening(outcome=await _outcome(running, call))

    @activity.defn
    async def call_agent(self, call: AgentCall) -> AgentOutcome:
        """Drains the agent to its reply, heartbeating its progress every second.

        Raises ApplicationError with a verdict as its type; its first detail is a RunError.
        """
        last = _last_heartbeat()
        attempt = activity.info().attempt - last.uncounted + call.prior_attempts
        running = self._calls.take(call.request.run_id)
        if running is None:
            if call.opened and attempt == 1:
                # that was the first: readers are told, some of whom may have heard it
                attempt, last = 2, last.model_copy(update={"uncounted": last.uncounted - 1})
            if call.attempts is not None and attempt > call.attempts:
                lost = AgentUnavailable("Every worker that called the agent stopped answering.")
                raise application_error(lost, call.attempts, final=True)
            agent = self._agent(call, attempt)
            passage = await self._passed(call, attempt, last)
            running = self._start(call, agent, passage, attempt, held=False, repeated=last.called)
        running.publisher.release()
        follower = _Follower(running)
        try:
            while not running.done.done():
                activity.heartbeat(CallHeartbeat(progress=running.progress, uncounted=last.uncounted, called=True))
                await follower.look()
                await asyncio.wait({running.done}, timeout=HEARTBEAT_SECONDS)
        except asyncio.CancelledError:
            await running.cancel()
            details = activity.cancellation_details()
            if details is not None and details.paused:
                activity.heartbeat(CallHeartbeat(uncounted=last.uncounted + 1, called=True))
            raise_unless_cancel_requested(details)
            raise
        outcome = await _outcome(running, call)
        await self._until_it_can_be_stored(outcome, last)
        return outcome

    async def _until_it_can_be_stored(self, outcome: AgentOutcome, last: CallHeartbeat) -> None:
        """A paid answer is kept here while there is no room for it: returned now, it would be lost, and the agent
        asked again.
        """
        while True:
            try:
                if not self._disk.is_low:
                    await activity.client().data_converter.encode([outcome])  # a large one is stored by that
                    return
            except PayloadStoreError as error:
                log.warning("an answer cannot be stored yet", error=str(error))
            activity.heartbeat(CallHeartbeat(uncounted=last.uncounted, called=True))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    @activity.defn
    async def publish_stream(self, follow: FollowRequest) -> bool:
        """Has the run's call publish what its agent says, if this process makes it (a local activity)."""
        running = self._calls.running(follow.run_id)
        if running is not None:
            running.publisher.want()
        return running is not None

    async def close(self) -> None:
        """Ends what no activity took over."""
        await self._calls.close()

    def _agent(self, call: AgentCall, attempt: int) -> Agent:
        agent = self._agents.get(call.agent)
        if agent is None:
            # Another worker may have it: workers and their configuration are rolled out one by one.
            unknown = AgentUnavailable(f"The worker that took this run has no agent named {call.agent}.")
            raise application_error(unknown, attempt)
        return agent

    async def _passed(self, call: AgentCall, attempt: int, last: CallHeartbeat) -> Passage:
        """A passage to the agent, or the failure by which Temporal has the call made later. Such attempts are none to
        the agent, so they are counted: the next one finds their number in the heartbeat.
        """
        refused_so_far = CallHeartbeat(uncounted=last.uncounted + 1, called=last.called)
        patience = _PATIENCE if call.waits else _PROMPT_PATIENCE
        passing = asyncio.ensure_future(self._gate.passed(call.agent, call.request.run_id, patience))
        try:
            while not (await asyncio.wait({passing}, timeout=HEARTBEAT_SECONDS))[0]:
                activity.heartbeat(refused_so_far)
            return passing.result()
        except (CircuitOpen, AgentBusy) as refusal:
            activity.heartbeat(refused_so_far)
            refused = in_time(refusal, call.origin.context(call.deadline))
            raise application_error(refused, attempt - 1, final=not call.waits) from None
        except asyncio.CancelledError:
            activity.heartbeat(refused_so_far)
            passing.cancel()
            passing.add_done_callback(_give_back)  # its turn may have come in that very moment
            raise_unless_cancel_requested(activity.cancellation_details())
            raise

    def _start(
        self, call: AgentCall, agent: Agent, passage: Passage, attempt: int, *, held: bool, repeated: bool = False
    ) -> CallInFlight:
        request = call.request
        if request.attempt != attempt:
            request = request.model_copy(update={"attempt": attempt})
        publisher = StreamPublisher(
            self._streams,
            own_workflow_id(),
            attempt,
            call.deadline,
            repeated=repeated or attempt > 1 or call.life > 1,
            first_index=(call.life - 1) * LIFE_STEP,
            held=held,
            awaited=call.streamed,
        )
        running = self._calls.start(agent, request, call.origin.context(call.deadline), publisher)
        running.done.add_done_callback(passage.over)
        return running


class _Follower:
    """Looks now and then whether somebody follows a run whose text is kept: the signal that says so may have reached
    another worker.
    """

    def __init__(self, call: CallInFlight) -> None:
        self._call = call
        self._pause = _FIRST_LOOK
        self._next = time.monotonic() + self._pause

    async def look(self) -> None:
        """Asks Temporal if it is time."""
        if not self._call.publisher.is_kept or time.monotonic() < self._next:
            return
        self._pause = min(2 * self._pause, _LONGEST_LOOK)
        self._next = time.monotonic() + self._pause
        with suppress(RPCError):
            handle = activity.client().get_workflow_handle(own_workflow_id())
            description = await handle.describe(rpc_timeout=_LOOK_TIMEOUT)
            if FOLLOWED in description.raw_description.workflow_execution_info.memo.fields:
                self._call.publisher.want()


def _last_heartbeat() -> CallHeartbeat:
    """What the attempt before this one left. After a reset by an operator attempts are counted from 1 again, so that
    no more of them can be uncounted than there were.
    """
    info = activity.info()
    if not info.heartbeat_details:
        return CallHeartbeat()
    last = CallHeartbeat.model_validate(info.heartbeat_details[0])
    return last.model_copy(update={"uncounted": min(last.uncounted, info.attempt - 1)})


def _give_back(passing: asyncio.Future[Passage]) -> None:
    if not passing.cancelled() and passing.exception() is None:
        passing.result().unused()


async def _outcome(running: CallInFlight, call: AgentCall) -> AgentOutcome:
    try:
        reply = await running.done
        return AgentOutcome(reply=reply, attempt=running.attempt, last_index=running.last_index)
    except Exception as error:
        last = call.attempts is not None and running.attempt >= call.attempts
        failed = agent_error(error)
        raise application_error(failed, running.attempt, final=last) from failed.__cause__
