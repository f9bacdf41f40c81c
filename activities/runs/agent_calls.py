"""Activities that call an agent.

A call starts in a local activity, within the workflow task: a fast answer costs no further round through the server.
A longer call is parked, and the regular activity `call_agent` adopts that same call. `CallsInFlight` in
inline_calls.py states the guarantee; docs/decisions/inline-calls.md has the figures.
"""

import asyncio
from datetime import timedelta
from typing import Any

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from sevenfold.activities.identity import current_tenant
from sevenfold.activities.runs.call_heartbeats import build_heartbeat, last_heartbeat, prior_usage
from sevenfold.activities.runs.call_meter import CallMeter
from sevenfold.activities.runs.call_starter import CallStarter
from sevenfold.activities.runs.cancellation import raise_unless_cancel_requested
from sevenfold.activities.runs.durable_values import current_step_store, load_steps
from sevenfold.activities.runs.failures import FailureRules, clamp_retry_after, to_application_error
from sevenfold.activities.runs.follow_poller import FollowPoller
from sevenfold.activities.runs.inline_calls import CallsInFlight
from sevenfold.activities.runs.running_call import CallInFlight
from sevenfold.adapters.access.step_addresses import StepAddresses
from sevenfold.adapters.agents.admission.admission import AdmissionControl, Permit
from sevenfold.adapters.agents.registry import AgentRegistry
from sevenfold.adapters.metrics.runs import count_retry
from sevenfold.adapters.payloads.stores import PayloadStoreError
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.contracts.agents.errors import AgentBusy, AgentUnavailable, CircuitOpen, QuotaExceeded, RunLimitReached
from sevenfold.contracts.agents.interface import Agent
from sevenfold.contracts.agents.questions import InputRequired
from sevenfold.contracts.agents.steps import StepRecord
from sevenfold.contracts.runs.calls import AgentCall, AgentOutcome, CallHeartbeat, InlineStart, PublishStreamInput

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 1.0

# How long a call waits for a permit in this activity, in seconds. After that the activity fails with a retry delay,
# so that a longer wait occupies no activity slot.
_INTERACTIVE_WAIT_SECONDS = 1.0
_BACKGROUND_WAIT_SECONDS = 5.0


class AgentCalls:
    """Makes the agent calls of one worker process."""

    def __init__(
        self,
        agents: AgentRegistry,
        admission: AdmissionControl,
        hubs: StreamHubs,
        disk: DiskSpace,
        meter: CallMeter,
        *,
        rules: FailureRules,
        inline_timeout: timedelta,
        max_calls: int,
        steps: StepAddresses | None = None,
    ) -> None:
        self._rules = rules
        self._agents = agents
        self._admission = admission
        self._disk = disk
        self._meter = meter
        self._inline_seconds = inline_timeout.total_seconds()
        self._calls = CallsInFlight(max_calls)
        self._starter = CallStarter(hubs, meter, self._calls, steps)

    @activity.defn(name="start_call_inline")
    async def start_call_inline(self, call: AgentCall) -> InlineStart:
        """Starts the call and waits up to the inline time-out for its reply (a local activity).

        Returns no outcome if the call continues and is parked for `call_agent`, if as many calls run as may, if the
        tenant has its share of them while others call, or if admission refuses the call at this moment. A streamed
        call is always parked, because its readers get chunks without waiting for the reply.
        """
        call_key = (call.request.run_id, activity.info().workflow_run_id or "", str(call.request.attempt))
        if (finished := self._calls.find_finished(call_key)) is not None:
            return InlineStart(outcome=await self._await_outcome(finished, call))
        if self._inline_seconds == 0 or not self._calls.has_room(current_tenant()):
            return InlineStart()
        # The workflow task may be a repetition, whose call may be parked here.
        running = self._calls.adopt(call.request.run_id)
        if running is None:
            agent = self._get_agent(call, call.request.attempt)
            permit = await self._admission.try_acquire(call.agent, current_tenant(), call.key_id)
            if permit is None:
                return InlineStart()
            running = self._starter.start(call, agent, permit, call.request.attempt, awaits_adoption=True)
        try:
            done = await _wait_inline(running, 0 if call.is_streamed else self._inline_seconds)
        except asyncio.CancelledError:
            await running.cancel()
            raise
        if not done or self._disk.is_low:
            self._calls.park(call.request.run_id, running)
            return InlineStart(is_running=True)
        self._calls.keep_finished(call_key, running)
        return InlineStart(outcome=await self._await_outcome(running, call))

    @activity.defn(name="call_agent")
    async def call_agent(self, call: AgentCall) -> AgentOutcome:
        """Consumes the agent's events up to its reply and sends a heartbeat with the progress every second.

        Adopts the parked call of the run if it is in this process; otherwise starts an attempt.

        Raises ApplicationError with an ErrorCode as its type and a RunError as its first detail.
        """
        last = last_heartbeat()
        attempt = activity.info().attempt - last.skipped_attempts + call.prior_attempts
        running = self._calls.adopt(call.request.run_id)
        if running is None:
            if call.started_inline and attempt == 1:
                # The lost inline call was attempt 1. Readers may have its text, so this attempt resets the stream.
                attempt, last = 2, last.model_copy(update={"skipped_attempts": last.skipped_attempts - 1})
            if call.max_attempts is not None and attempt > call.max_attempts:
                lost = AgentUnavailable("Every worker that called the agent stopped sending heartbeats.")
                raise to_application_error(lost, call.max_attempts, final=True)
            agent = self._get_agent(call, attempt)
            self._check_limits(call, attempt, last)
            records = await self._load_steps(call, attempt) if _has_earlier_calls(attempt, last) else None
            permit = await self._acquire_permit(call, attempt, last)
            running = self._starter.start(
                call,
                agent,
                permit,
                attempt,
                awaits_adoption=False,
                is_retry=last.agent_called,
                last=last,
                records=records,
            )
        running.confirm_adoption()
        follower = FollowPoller(running)
        try:
            while not running.done.done():
                activity.heartbeat(build_heartbeat(running, last.skipped_attempts))
                await follower.poll()
                await asyncio.wait({running.done}, timeout=HEARTBEAT_SECONDS)
        except asyncio.CancelledError:
            await running.cancel()
            details = activity.cancellation_details()
            if details is not None and details.paused:
                activity.heartbeat(build_heartbeat(running, last.skipped_attempts + 1))
            raise_unless_cancel_requested(details)
            raise
        try:
            outcome = await self._await_outcome(running, call)
        except ApplicationError:
            # The next attempt reads it to apply its limits.
            activity.heartbeat(build_heartbeat(running, last.skipped_attempts, failed=True))
            raise
        await self._wait_until_storable(outcome, build_heartbeat(running, last.skipped_attempts))
        return outcome

    async def _load_steps(self, call: AgentCall, attempt: int) -> list[StepRecord]:
        """Returns the steps of earlier attempts: the text before them is not repeated to readers."""
        try:
            return await load_steps(current_step_store(call.earlier_executions))
        except AgentUnavailable as error:
            raise to_application_error(error, attempt - 1) from error.__cause__

    async def _await_outcome(self, running: CallInFlight, call: AgentCall) -> AgentOutcome:
        try:
            reply = await running.done
            return AgentOutcome(reply=reply, attempts=running.attempt, last_index=running.last_index)
        except InputRequired as asked:
            usage = running.spending.sum(running.usage, failed=False)
            return AgentOutcome(
                reply=None, attempts=running.attempt, questions=asked.questions, mark=asked.mark, usage=usage
            )
        except Exception as error:
            failed = self._rules.read(error)
            last = call.max_attempts is not None and running.attempt >= call.max_attempts
            may_retry = self._rules.may_retry(failed) and not last
            if may_retry:
                count_retry(call.agent, failed.code)
            usage = running.spending.sum(running.usage, failed=True)
            raise to_application_error(
                failed, running.attempt, final=not may_retry, usage=usage
            ) from failed.__cause__

    async def _wait_until_storable(self, outcome: AgentOutcome, heartbeat: CallHeartbeat) -> None:
        """Keeps the answer in memory while the store has no space. Returning it now would lose it and call the agent
        again.
        """
        while True:
            try:
                if not self._disk.is_low:
                    await activity.client().data_converter.encode([outcome])  # Encoding stores a large answer.
                    return
            except PayloadStoreError as error:
                log.warning("an answer cannot be stored yet, retrying", error=str(error))
            activity.heartbeat(heartbeat)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    @activity.defn(name="publish_stream")
    async def publish_stream(self, publish_input: PublishStreamInput) -> bool:
        """Makes the run's call publish its stream. Returns False if the call is not in this process (a local
        activity).
        """
        running = self._calls.find_running(publish_input.run_id)
        if running is not None:
            running.publisher.start_publishing()
        return running is not None

    async def close(self) -> None:
        """Cancels the parked calls."""
        await self._calls.close()

    def _get_agent(self, call: AgentCall, attempt: int) -> Agent:
        agent = self._agents.get(call.agent)
        if agent is None:
            # Another worker may have it: workers get a new configuration one by one.
            unknown = AgentUnavailable(
                f"The worker that took this run has no agent {call.agent} in its sevenfold.toml."
            )
            raise to_application_error(unknown, attempt)
        return agent

    def _check_limits(self, call: AgentCall, attempt: int, last: CallHeartbeat) -> None:
        """Raises the final failure of a run whose earlier attempts have used what it may."""
        prior = prior_usage(call, last)
        try:
            self._meter.spending(current_tenant(), call.key_id, call.agent, call.limits, lambda: prior).check(None)
        except RunLimitReached as error:
            raise to_application_error(error, attempt - 1, final=True, usage=prior) from None

    async def _acquire_permit(self, call: AgentCall, attempt: int, last: CallHeartbeat) -> Permit:
        """Returns a permit, or raises the failure by which Temporal retries the call later.

        An attempt without a permit does not count as an attempt of the agent: the heartbeat passes the number of such
        attempts to the next one.
        """
        heartbeat = last.model_copy(update={"progress": None, "skipped_attempts": last.skipped_attempts + 1})
        timeout_seconds = _BACKGROUND_WAIT_SECONDS if call.waits_for_capacity else _INTERACTIVE_WAIT_SECONDS
        acquisition = asyncio.ensure_future(
            self._admission.acquire(call.agent, current_tenant(), call.key_id, call.request.run_id, timeout_seconds)
        )
        try:
            while not (await asyncio.wait({acquisition}, timeout=HEARTBEAT_SECONDS))[0]:
                activity.heartbeat(heartbeat)
            return acquisition.result()
        except (CircuitOpen, AgentBusy, QuotaExceeded) as refusal:
            activity.heartbeat(heartbeat)
            if not call.waits_for_capacity:
                raise to_application_error(refusal, attempt - 1, final=True) from None
            waiting = clamp_retry_after(refusal, call.request_context.agent_context(call.deadline))
            raise to_application_error(waiting, attempt - 1) from None
        except asyncio.CancelledError:
            activity.heartbeat(heartbeat)
            acquisition.cancel()
            acquisition.add_done_callback(_release_acquired)  # The permit may be granted at this very moment.
            raise_unless_cancel_requested(activity.cancellation_details())
            raise


def _has_earlier_calls(attempt: int, last: CallHeartbeat) -> bool:
    return attempt > 1 or last.agent_called


async def _wait_inline(running: CallInFlight, seconds: float) -> bool:
    """Waits until the call has ended, or needs to be adopted; returns whether it has ended."""
    waits: set[asyncio.Future[Any]] = {running.done}
    if seconds and running.durable is not None:
        waits.add(asyncio.ensure_future(running.durable.needs_adoption.wait()))
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits - {running.done}:
            one.cancel()
    return running.done.done()


def _release_acquired(acquisition: asyncio.Future[Permit]) -> None:
    if not acquisition.cancelled() and acquisition.exception() is None:
        acquisition.result().release()
