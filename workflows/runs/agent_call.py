"""What every pattern's workflow holds: the call to its agent, its cancellation, its story in the Temporal UI."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

from sevenfold.activities.runs.agent_calls import AgentCalls
from sevenfold.activities.runs.run_control import RunControl
from sevenfold.contracts.agent import WorkflowTarget
from sevenfold.contracts.calls import AgentCall, AgentOutcome, CancelRequest, InlineStart, PublishStreamInput
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.runs import DEADLINE_GRACE, RunError, RunInput, RunResult
from sevenfold.contracts.streams import FOLLOW_SIGNAL, FOLLOWED_MEMO
from sevenfold.contracts.verdicts import ErrorCode
from sevenfold.workflows.runs.child_agent import WorkflowAgent, register_progress_handler
from sevenfold.workflows.runs.failures import deadline_failure, to_application_error, to_run_error
from sevenfold.workflows.runs.interactions import publish_interaction
from sevenfold.workflows.runs.retry_profiles import BACKGROUND, INITIAL_INTERVAL, INTERACTIVE, RetryProfile
from sevenfold.workflows.runs.stream_buffer import StreamBuffer
from sevenfold.workflows.webhooks.delivery import start_delivery

# A worker that died is noticed after this; heartbeats come every second.
HEARTBEAT_TIMEOUT = timedelta(seconds=10)

# Well below the time after which a workflow task that was lost is done again.
_MAX_INLINE_DELAY = timedelta(seconds=2)

# Events in the history when the first workflow task is done for the first time.
_FIRST_TASK_EVENTS = 3

T = TypeVar("T")


class AgentRun:
    """One run's call to its agent, from the first attempt to the reply or the verdict."""

    def __init__(self, run: RunInput) -> None:
        self._run = run
        self._summary = f"{run.agent}: {run.request.task}"
        self._started_at = workflow.info().workflow_start_time
        self._deadline = self._started_at + timedelta(seconds=run.timeout)
        self._request = run.request
        self._stream = StreamBuffer()
        self._is_followed = False
        workflow.set_signal_handler(FOLLOW_SIGNAL, self._handle_follow)
        if run.target is not None:
            register_progress_handler(self._set_details)
        self._set_details("is asked")

    async def _handle_follow(self) -> None:
        """Starts publishing the stream; through the memo if another worker calls the agent."""
        if self._is_followed:
            return
        self._is_followed = True
        is_local = await workflow.execute_local_activity_method(
            AgentCalls.publish_stream,
            PublishStreamInput(run_id=self._request.run_id),
            schedule_to_close_timeout=timedelta(seconds=60),
        )
        if not is_local:
            workflow.upsert_memo({FOLLOWED_MEMO: True})

    async def run_and_finalize(self, work: Awaitable[T]) -> T:
        """The outcome of `work`, once its delivery to the run's webhook has begun, and no handler is under way: a
        `cancel` that is just being handed on must be finished, or Temporal counts it as lost; those who follow the
        stream by stock clients are told that it ends.

        Not by `finally`: a run that is dropped with its worker is closed by GeneratorExit, and may not wait any more.
        """
        try:
            outcome = await work
        except (Exception, asyncio.CancelledError) as error:
            await self._finalize(error)
            raise
        await self._finalize()
        return outcome

    async def _finalize(self, error: BaseException | None = None) -> None:
        if self._run.webhook is not None:
            await start_delivery(self._run.webhook, self._run.generation)
        if self._run.publish_interaction:
            await publish_interaction(self._run, error)
        self._stream.close()
        await workflow.wait_condition(workflow.all_handlers_finished)

    async def call_interactive(self) -> RunResult:
        """Opens the call within this workflow task; what takes longer goes on as an activity.

        Raises ApplicationError with a verdict as its type, or a cancellation.
        """
        return await self.run_and_finalize(self._start_inline_then_call(INTERACTIVE))

    async def call_hybrid(self) -> RunResult:
        """Opens the call as `call_interactive` does, and has the patience of `call_in_background`: its client waits
        only if it is short.

        Raises as they do.
        """
        return await self.run_and_finalize(self._start_inline_then_call(BACKGROUND))

    async def call_with_attempts(self, attempts: int) -> RunResult:
        """Opens the call as `call_interactive` does, for one who has the patience of so many attempts; what has to be
        done before the run is over is left to the caller, who awaits it by `run_and_finalize`.
        """
        return await self._start_inline_then_call(replace(BACKGROUND, max_attempts=attempts))

    async def _start_inline_then_call(self, profile: RetryProfile) -> RunResult:
        self._check_deadline()
        if self._run.target is not None:
            return await self._call_workflow_agent(self._run.target, profile)
        prior_attempts, started_inline = 0, False
        try:
            inline_start = await self._start_inline(self._build_call(profile))
            if inline_start.outcome is not None:
                return self._build_result(inline_start.outcome)
            started_inline = inline_start.is_running
        except FailureError as error:
            prior_attempts = 1
            if profile.max_attempts == 1:
                self._raise_failure(error)
            await self._back_off(error)
        return await self._call_by_activity(profile, prior_attempts, started_inline=started_inline)

    async def _start_inline(self, call: AgentCall) -> InlineStart:
        inline_start: InlineStart = await workflow.execute_local_activity_method(
            AgentCalls.start_call_inline,
            call,
            schedule_to_close_timeout=self._remaining(),
            summary=self._summary,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return inline_start

    async def call_in_background(self) -> RunResult:
        """Calls by activity, again and again until the run's timeout: nobody holds a connection for it.

        Raises as `call_interactive` does.
        """
        return await self.run_and_finalize(self._call_by_activity(BACKGROUND))

    async def call_with_document(self, data: Awaitable[JsonObject]) -> RunResult:
        """As `call_hybrid` with more `data` for the agent that
        has to be had first, by an activity.
        """
        return await self.run_and_finalize(self._fetch_data_then_call(data))

    async def _fetch_data_then_call(self, data: Awaitable[JsonObject]) -> RunResult:
        try:
            found = await data
        except ActivityError as error:
            self._raise_failure(error)
        self._request = self._request.model_copy(update={"data": {**self._request.data, **found}})
        return await self._start_inline_then_call(BACKGROUND)

    async def call_streaming(self) -> RunResult:
        """Begins the call within this workflow task, and goes on with it by activity, which tells what the agent
        says; its client waits, as for `call_interactive`.

        Raises as that does.
        """
        return await self.run_and_finalize(self._call_streaming())

    async def _call_streaming(self) -> RunResult:
        # A workflow task that is done again, long after the start, would make a call anew that some may have heard.
        is_fresh = workflow.now() - self._started_at < _MAX_INLINE_DELAY
        is_repeated = not is_fresh and workflow.info().get_current_history_length() > _FIRST_TASK_EVENTS
        started_inline = is_repeated
        if self._run.target is None and is_fresh:
            self._check_deadline()
            try:
                inline_start = await self._start_inline(self._build_call(INTERACTIVE, streamed=True))
            except FailureError as error:
                is_rejected = to_run_error(error, self._run.timeout).code is ErrorCode.AGENT_REJECTED
                if is_cancelled_exception(error) or is_rejected:
                    self._raise_failure(error)
                started_inline = True  # the activity meets the same, and knows what to do
            else:
                if inline_start.outcome is not None:
                    return self._build_result(inline_start.outcome)
                started_inline = inline_start.is_running
        return await self._call_by_activity(INTERACTIVE, streamed=True, started_inline=started_inline)

    async def cancel(self) -> None:
        """Answers the `cancel` signal: asks Temporal to cancel this run."""
        self._set_details("is told to stop")
        info = workflow.info()
        await workflow.execute_local_activity_method(
            RunControl.request_cancellation,
            CancelRequest(workflow_id=info.workflow_id, workflow_run_id=info.run_id),
            schedule_to_close_timeout=timedelta(seconds=60),
        )

    async def _call_by_activity(
        self, profile: RetryProfile, prior_attempts: int = 0, *, streamed: bool = False, started_inline: bool = False
    ) -> RunResult:
        self._check_deadline()
        self._set_details("is at work")
        if self._run.target is not None:
            return await self._call_workflow_agent(self._run.target, profile)
        truncation = asyncio.create_task(self._stream.truncate())
        try:
            outcome = await workflow.execute_activity_method(
                AgentCalls.call_agent,
                self._build_call(profile, prior_attempts, streamed=streamed, started_inline=started_inline),
                summary=self._summary,
                schedule_to_close_timeout=self._remaining(),
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                retry_policy=profile.retry_policy(prior_attempts),
            )
        except ActivityError as error:
            self._raise_failure(error)
        finally:
            truncation.cancel()
        return self._build_result(outcome)

    async def _call_workflow_agent(self, target: WorkflowTarget, profile: RetryProfile) -> RunResult:
        workflow_agent = WorkflowAgent(target, self._request, self._deadline, self._set_details)
        try:
            outcome = await workflow_agent.call(profile)
        except ApplicationError as error:
            self._raise_failure(error)
        return self._build_result(outcome)

    async def _back_off(self, error: FailureError) -> None:
        """Waits before the second attempt, unless there shall be none."""
        failed = to_run_error(error, self._run.timeout)
        if is_cancelled_exception(error) or not failed.code.is_retryable:
            self._raise_failure(error)
        self._set_details(f"failed once ({failed.code}) and is asked again")
        pause = INITIAL_INTERVAL if failed.retry_after is None else timedelta(seconds=failed.retry_after)
        await workflow.sleep(min(pause, self._remaining()))

    def _raise_failure(self, error: FailureError) -> NoReturn:
        if is_cancelled_exception(error):
            self._set_details("was stopped")
            raise error
        failed: RunError = to_run_error(error, self._run.timeout)
        self._set_details(f"failed: **{failed.code}**. {failed.detail}")
        raise to_application_error(failed) from error

    def _check_deadline(self) -> None:
        # Also met when no worker was there in time.
        if workflow.now() >= self._deadline:
            raise deadline_failure(self._run.timeout)

    def _remaining(self) -> timedelta:
        return max(self._deadline - workflow.now(), timedelta(milliseconds=1))

    def _build_call(
        self, profile: RetryProfile, prior_attempts: int = 0, *, streamed: bool = False, started_inline: bool = False
    ) -> AgentCall:
        return AgentCall(
            agent=self._run.agent,
            request=self._request,
            deadline=self._deadline,
            request_context=self._run.request_context,
            prior_attempts=prior_attempts,
            max_attempts=profile.max_attempts,
            waits_for_capacity=profile.waits_for_capacity,
            started_inline=started_inline,
            is_streamed=streamed,
            generation=self._run.generation,
        )

    def _build_result(self, outcome: AgentOutcome) -> RunResult:
        if workflow.now() > self._deadline + DEADLINE_GRACE:  # the API has reported it as failed
            raise deadline_failure(self._run.timeout)
        self._set_details(f"has answered (attempt {outcome.attempt})")
        seconds = (workflow.now() - self._started_at).total_seconds()
        return RunResult(
            reply=outcome.reply,
            duration_seconds=max(0.0, seconds),
            attempts=outcome.attempt,
            last_index=outcome.last_index,
        )

    def _set_details(self, status: str) -> None:
        """Writes the run's present state where the Temporal UI shows it."""
        run = self._run
        workflow.set_current_details(
            f"Agent `{run.agent}`, task `{run.request.task}`: {status}.\n\n"
            f"Deadline {self._deadline:%Y-%m-%d %H:%M:%S} UTC."
        )
