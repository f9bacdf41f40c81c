"""The agent call that every pattern workflow holds: attempts, cancellation, finalization, and the details in the
Temporal UI.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

from sevenfold.activities.runs.agent_calls import AgentCalls
from sevenfold.activities.runs.run_control import RunControl
from sevenfold.contracts.agents.interface import Progress, WorkflowTarget
from sevenfold.contracts.agents.questions import Question
from sevenfold.contracts.agents.usage import NO_USAGE
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.runs.calls import AgentCall, AgentOutcome, CancelRequest, InlineStart, PublishStreamInput
from sevenfold.contracts.runs.run import RunInput, RunResult
from sevenfold.contracts.runs.streams import FOLLOW_SIGNAL, FOLLOWED_MEMO
from sevenfold.workflows.runs.call_start import FIRST_CALL, CallStart
from sevenfold.workflows.runs.child_agent import WorkflowAgent, register_progress_handler
from sevenfold.workflows.runs.failures import is_final, to_run_error
from sevenfold.workflows.runs.interactions import publish_input_required, publish_interaction
from sevenfold.workflows.runs.retry_profiles import BACKGROUND, INITIAL_INTERVAL, INTERACTIVE, RetryProfile
from sevenfold.workflows.runs.run_reply import start_reply
from sevenfold.workflows.runs.run_state import RunState
from sevenfold.workflows.runs.run_webhook import RunWebhookDeliveries
from sevenfold.workflows.runs.stream_buffer import StreamBuffer

# Temporal detects a dead worker after this time; heartbeats are sent every second.
HEARTBEAT_TIMEOUT = timedelta(seconds=10)

# Well below the workflow task timeout (10 s), after which a lost workflow task is repeated.
_MAX_INLINE_DELAY = timedelta(seconds=2)

# Length of the history when the first workflow task runs for the first time.
_FIRST_TASK_EVENTS = 3

T = TypeVar("T")


class AgentRun:
    """One run's agent call, from the first attempt to the reply or the failure."""

    def __init__(self, run: RunInput) -> None:
        self._run = run
        self._state = RunState(run, self._announce_questions)
        self._stream = StreamBuffer()
        self._webhook = RunWebhookDeliveries(run, self._state.deadline)
        self._is_followed = False
        workflow.set_signal_handler(FOLLOW_SIGNAL, self._handle_follow)
        if run.target is not None:
            register_progress_handler(self._state.set_details, self.report_progress)
        self._state.set_details("call starts")

    async def _handle_follow(self) -> None:
        """Starts publishing the stream. If another worker makes the call, it polls the memo for this."""
        if self._is_followed:
            return
        self._is_followed = True
        is_local = await workflow.execute_local_activity_method(
            AgentCalls.publish_stream,
            PublishStreamInput(run_id=self._state.request.run_id),
            schedule_to_close_timeout=timedelta(seconds=60),
        )
        if not is_local:
            workflow.upsert_memo({FOLLOWED_MEMO: True})

    async def run_and_finalize(self, work: Awaitable[T]) -> T:
        """Starts the webhook's updates, awaits `work`, starts the outcome's delivery, closes the stream and drains
        the handlers.

        Temporal counts a `cancel` handler that has not finished as lost, hence the drain. Closing the stream ends the
        polls of stock Workflow Streams clients.

        It does not use `finally`: an evicted run is closed by GeneratorExit and may not await.
        """
        self._webhook.start()
        try:
            outcome = await work
        except (Exception, asyncio.CancelledError) as error:
            await self._finalize(error)
            raise
        await self._finalize()
        return outcome

    async def _finalize(self, error: BaseException | None = None) -> None:
        await self._webhook.deliver_outcome()
        await start_reply(self._run)
        await publish_interaction(self._run, error)
        self._stream.close()
        await workflow.wait_condition(workflow.all_handlers_finished)

    def report_progress(self, progress: Progress) -> None:
        """Forwards progress to the webhook."""
        self._webhook.report_progress(progress)

    async def call_interactive(self) -> RunResult:
        """Starts the call inline; a call that takes longer than the inline wait continues as an activity.

        Raises ApplicationError with an ErrorCode as its type, or a cancellation.
        """
        return await self.run_and_finalize(self._start_inline_then_call(INTERACTIVE))

    async def call_hybrid(self) -> RunResult:
        """Starts the call inline as `call_interactive` does, and retries as `call_in_background` does: the client
        waits only for a short answer.

        Raises as they do.
        """
        return await self.run_and_finalize(self._start_inline_then_call(BACKGROUND))

    async def call_with_attempts(self, attempts: int) -> RunResult:
        """Starts the call inline and makes at most `attempts` attempts. The caller finalizes by `run_and_finalize`.

        Raises as `call_interactive` does.
        """
        return await self._start_inline_then_call(replace(BACKGROUND, max_attempts=attempts))

    async def _start_inline_then_call(self, profile: RetryProfile) -> RunResult:
        self._state.check_deadline()
        if self._run.target is not None:
            return await self._call_workflow_agent(self._run.target, profile)
        try:
            inline_start = await self._start_inline(self._build_call(profile))
            if inline_start.outcome is not None:
                return self._state.build_result(inline_start.outcome)
            start = CallStart(started_inline=inline_start.is_running)
        except FailureError as error:
            start = CallStart(prior_attempts=1, prior_usage=to_run_error(error, self._run.timeout).usage or NO_USAGE)
            if profile.max_attempts == 1:
                self._state.raise_failure(error)
            await self._back_off(error)
        return await self._call_by_activity(profile, start)

    async def _start_inline(self, call: AgentCall) -> InlineStart:
        inline_start: InlineStart = await workflow.execute_local_activity_method(
            AgentCalls.start_call_inline,
            call,
            schedule_to_close_timeout=self._state.remaining(),
            summary=self._state.summary,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return inline_start

    async def call_in_background(self) -> RunResult:
        """Calls by activity and retries until the run's timeout: no client connection waits for it.

        Raises as `call_interactive` does.
        """
        return await self.run_and_finalize(self._call_by_activity(BACKGROUND))

    async def call_with_document(self, data: Awaitable[JsonObject]) -> RunResult:
        """Awaits `data`, an activity's result, adds it to the request's data and calls as `call_hybrid` does."""
        return await self.run_and_finalize(self._fetch_data_then_call(data))

    async def _fetch_data_then_call(self, data: Awaitable[JsonObject]) -> RunResult:
        try:
            found = await data
        except ActivityError as error:
            self._state.raise_failure(error)
        self._state.request = self._state.request.model_copy(update={"data": {**self._state.request.data, **found}})
        return await self._start_inline_then_call(BACKGROUND)

    async def call_streaming(self) -> RunResult:
        """Starts the call inline, without waiting for the reply, and continues as an activity that publishes the
        stream. Retries and raises as `call_interactive` does.
        """
        return await self.run_and_finalize(self._call_streaming())

    async def _call_streaming(self) -> RunResult:
        # A workflow task that is repeated long after the start would make a second call, whose text some readers may
        # have already. So the inline start counts as made, and the activity decides.
        is_fresh = workflow.now() - self._state.started_at < _MAX_INLINE_DELAY
        is_repeated = not is_fresh and workflow.info().get_current_history_length() > _FIRST_TASK_EVENTS
        start = CallStart(is_streamed=True, started_inline=is_repeated)
        if self._run.target is None and is_fresh:
            self._state.check_deadline()
            try:
                inline_start = await self._start_inline(
                    self._state.build_call(
                        self._webhook.progress_workflow_id, INTERACTIVE, CallStart(is_streamed=True)
                    )
                )
            except FailureError as error:
                if is_cancelled_exception(error) or is_final(error):
                    self._state.raise_failure(error)
                # The activity meets the same failure and handles it.
                used = to_run_error(error, self._run.timeout).usage or NO_USAGE
                start = replace(start, started_inline=True, prior_usage=used)
            else:
                if inline_start.outcome is not None:
                    return self._state.build_result(inline_start.outcome)
                start = replace(start, started_inline=inline_start.is_running)
        return await self._call_by_activity(INTERACTIVE, start)

    async def cancel(self) -> None:
        """Handles the `cancel` signal: requests Temporal's own cancellation of this run."""
        self._state.set_details("cancellation requested")
        info = workflow.info()
        await workflow.execute_local_activity_method(
            RunControl.request_cancellation,
            CancelRequest(workflow_id=info.workflow_id, workflow_run_id=info.run_id),
            schedule_to_close_timeout=timedelta(seconds=60),
        )

    async def _call_by_activity(self, profile: RetryProfile, start: CallStart = FIRST_CALL) -> RunResult:
        self._state.check_deadline()
        self._state.set_details("call is running")
        if self._run.target is not None:
            return await self._call_workflow_agent(self._run.target, profile)
        outcome = await self._execute_call(profile, start)
        while outcome.questions:
            await self._state.wait_for_answers(outcome.questions)
            # No client waits for the answer any more.
            profile = BACKGROUND if profile is INTERACTIVE else profile
            start = CallStart(prior_usage=outcome.usage, is_streamed=start.is_streamed, mark=outcome.mark)
            outcome = await self._execute_call(profile, start)
        return self._state.build_result(outcome)

    async def _announce_questions(self, questions: Sequence[Question]) -> None:
        """Publishes the questions to the webhook and to subscribers."""
        self._webhook.report_questions(questions)
        await publish_input_required(self._run, self._state.request.turn, questions)

    async def _execute_call(self, profile: RetryProfile, start: CallStart) -> AgentOutcome:
        truncation = asyncio.create_task(self._stream.truncate())
        try:
            outcome: AgentOutcome = await workflow.execute_activity_method(
                AgentCalls.call_agent,
                self._build_call(profile, start),
                summary=self._state.summary,
                schedule_to_close_timeout=self._state.remaining(),
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                retry_policy=profile.retry_policy(),
            )
        except ActivityError as error:
            self._state.raise_failure(error)
        finally:
            truncation.cancel()
        return outcome

    async def _call_workflow_agent(self, target: WorkflowTarget, profile: RetryProfile) -> RunResult:
        workflow_agent = WorkflowAgent(self._run, target, self._state)
        try:
            outcome = await workflow_agent.call(profile)
        except ApplicationError as error:
            self._state.raise_failure(error)
        return self._state.build_result(outcome)

    def _build_call(self, profile: RetryProfile, start: CallStart = FIRST_CALL) -> AgentCall:
        return self._state.build_call(self._webhook.progress_workflow_id, profile, start)

    async def _back_off(self, error: FailureError) -> None:
        """Waits before the second attempt. Raises if the failure is not retryable or the run is cancelled."""
        failed = to_run_error(error, self._run.timeout)
        if is_cancelled_exception(error) or is_final(error):
            self._state.raise_failure(error)
        self._state.set_details(f"attempt 1 failed (`{failed.code}`), retrying")
        pause = INITIAL_INTERVAL if failed.retry_after is None else timedelta(seconds=failed.retry_after)
        await workflow.sleep(min(pause, self._state.remaining()))
