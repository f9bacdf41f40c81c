"""The activities that call an agent.

A call is opened in a local activity, within the workflow task: an answer that comes at once costs no further
round through the server. A call that takes longer is not started anew: the very same one is taken over by the
regular activity `call_agent`, which heartbeats, is cancelled by push, and survives this process by a retry
elsewhere. See docs/decisions.md, "Opening a call".
"""

import asyncio
from datetime import timedelta

from temporalio import activity

from activities.calls_in_flight import CallInFlight, CallsInFlight
from activities.failures import application_error, as_agent_error
from adapters.agents.registry import AgentRegistry
from adapters.streams.live import LiveStreams
from adapters.streams.publisher import StreamPublisher
from contracts.agent import AgentRequest
from contracts.calls import AgentCall, AgentOutcome, Opening
from contracts.verdicts import AgentUnavailable

HEARTBEAT_SECONDS = 1.0


class AgentCalls:
    """Holds the agents and the calls in flight of one worker process."""

    def __init__(self, agents: AgentRegistry, streams: LiveStreams, *, opening: timedelta, max_calls: int) -> None:
        self._agents = agents
        self._streams = streams
        self._opening = opening.total_seconds()
        self._calls = CallsInFlight(max_calls)

    @activity.defn
    async def open_agent_call(self, call: AgentCall) -> Opening:
        """Starts the call and waits a moment for its reply (a local activity).

        Returns no outcome when the call goes on, laid down for `call_agent`, or when there is no room for it.
        """
        if self._opening == 0 or self._calls.full:
            return Opening()
        # A workflow task that could not be handed in is done again; its call may still be here.
        running = self._calls.take(call.request.run_id) or self._start(call, call.request.attempt, held=True)
        try:
            done, _ = await asyncio.wait({running.done}, timeout=self._opening)
        except asyncio.CancelledError:
            await running.cancel()
            raise
        if not done:
            self._calls.leave(call.request.run_id, running)
            return Opening()
        return Opening(outcome=await _outcome(running))

    @activity.defn
    async def call_agent(self, call: AgentCall) -> AgentOutcome:
        """Drains the agent to its reply, heartbeating its progress every second.

        Raises ApplicationError with a verdict as its type; its first detail is a RunError.
        """
        attempt = activity.info().attempt + call.prior_attempts
        running = self._calls.take(call.request.run_id) or self._start(call, attempt, held=False)
        running.publisher.release()
        try:
            while not running.done.done():
                activity.heartbeat(running.progress)
                await asyncio.wait({running.done}, timeout=HEARTBEAT_SECONDS)
        except asyncio.CancelledError:
            await running.cancel()
            raise
        return await _outcome(running)

    async def close(self) -> None:
        """Ends what no activity took over."""
        await self._calls.close()

    def _start(self, call: AgentCall, attempt: int, *, held: bool) -> CallInFlight:
        agent = self._agents.get(call.agent)
        if agent is None:
            # Another worker may have it: workers and their configuration are rolled out one by one.
            unknown = AgentUnavailable(f"The worker that took this run has no agent named {call.agent}.")
            raise application_error(unknown, attempt)
        request: AgentRequest = call.request.model_copy(update={"attempt": attempt})
        workflow_id = activity.info().workflow_id
        assert workflow_id is not None, "started by a workflow"  # noqa: S101
        publisher = StreamPublisher(self._streams, workflow_id, attempt, held=held, awaited=call.streamed)
        return self._calls.start(agent, request, call.deadline, publisher)


async def _outcome(running: CallInFlight) -> AgentOutcome:
    try:
        reply = await running.done
        return AgentOutcome(reply=reply, attempt=running.attempt, last_index=running.last_index)
    except Exception as error:
        raise application_error(as_agent_error(error), running.attempt) from error
