"""What every pattern's workflow holds: the call to its agent, its cancellation, its story in the Temporal UI."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

from activities.agent_calls import AgentCalls
from activities.run_control import RunControl
from contracts.agent import WorkflowTarget
from contracts.calls import AgentCall, AgentOutcome, CancelRequest, FollowRequest, Opening
from contracts.payload import JsonObject
from contracts.runs import DEADLINE_GRACE, RunError, RunInput, RunResult
from contracts.streams import FOLLOW_SIGNAL, FOLLOWED
from contracts.verdicts import Verdict
from workflows.failures import deadline_exceeded, failure_of, run_error
from workflows.interactions import publish_interaction
from workflows.patience import FIRST_PAUSE, PATIENT, PROMPT, Patience
from workflows.run_stream import RunStream
from workflows.webhook_delivery import start_delivery
from workflows.workflow_agent import WorkflowAgent, hear_progress

# A worker that died is noticed after this; heartbeats come every second.
HEARTBEAT_TIMEOUT = timedelta(seconds=10)

# Well below the time after which a workflow task that was lost is done again.
_FRESH = timedelta(seconds=2)

# Events in the history when the first workflow task is done for the first time.
_FIRST_TASK = 3

# A streamed call that was over when it was opened is not made again. Runs from before did that by the activity.
_OVER_AT_ONCE = "over-at-once"

T = TypeVar("T")


class AgentRun:
    """One run's call to its agent, from the first attempt to the reply or the verdict."""

    def __init__(self, run: RunInput) -> None:
        self._run = run
        self._summary = f"{run.agent}: {run.request.task}"
        self._started = workflow.info().workflow_start_time
        self._deadline = self._started + timedelta(seconds=run.timeout)
        self._request = run.request
        self._stream = RunStream()
        self._followed = False
        workflow.set_signal_handler(FOLLOW_SIGNAL, self._follow)
        if run.target is not None:
            hear_progress(self._tell)
        self._tell("is asked")

    async def _follow(self) -> None:
        """Starts publishing the stream; through the memo if another worker calls the agent."""
        if self._followed:
            return
        self._followed = True
        here = await workflow.execute_local_activity_method(
            AgentCalls.publish_stream,
            FollowRequest(run_id=self._request.run_id),
            schedule_to_close_timeout=timedelta(seconds=60),
        )
        if not here:
            workflow.upsert_memo({FOLLOWED: True})

    async def told(self, work: Awaitable[T]) -> T:
        """The outcome of `work`, once its delivery to the run's webhook has begun, and no handler is under way: a
        `cancel` that is just being handed on must be finished, or Temporal counts it as lost; those who follow the
        stream by stock clients are told that it ends.

        Not by `finally`: a run that is dropped with its worker is closed by GeneratorExit, and may not wait any more.
        """
        try:
            outcome = await work
        except (Exception, asyncio.CancelledError) as error:
            await self._over(error)
            raise
        await self._over()
        return outcome

    async def _over(self, error: BaseException | None = None) -> None:
        if self._run.webhook is not None:
            await start_delivery(self._run.webhook, self._run.life)
        if self._run.published:
            await publish_interaction(self._run, error)
        self._stream.end()
        await workflow.wait_condition(workflow.all_handlers_finished)

    async def answer_promptly(self) -> RunResult:
        """Opens the call within this workflow task; what takes longer goes on as an activity.

        Raises ApplicationError with a verdict as its type, or a cancellation.
        """
        return await self.told(self._open_then_call(PROMPT))

    async def answer_at_any_length(self) -> RunResult:
        """Opens the call as `answer_promptly` does, and has the patience of `answer_in_time`: its client waits only
        if it is short.

        Raises as they do.
        """
        return await self.told(self._open_then_call(PATIENT))

    async def answered(self, attempts: int) -> RunResult:
        """Opens the call as `answer_promptly` does, for one who has the patience of so many attempts; what has to be
        done before the run is over is left to the caller, who awaits it by `told`.
        """
        return await self._open_then_call(replace(PATIENT, attempts=attempts))

    async def _open_then_call(self, patience: Patience) -> RunResult:
        self._check_deadline()
        if self._run.target is not None:
            return await self._ask_workflow(self._run.target, patience)
        prior_attempts, opened = 0, False
        try:
            opening = await self._open(self._call(patience))
            if opening.outcome is not None:
                return self._result(opening.outcome)
            opened = opening.begun
        except FailureError as error:
            prior_attempts = 1
            if patience.attempts == 1:
                self._raise_told(error)
            await self._pause_after(error)
        return await self._call_until_answered(patience, prior_attempts, opened=opened)

    async def _open(self, call: AgentCall) -> Opening:
        opening: Opening = await workflow.execute_local_activity_method(
            AgentCalls.open_agent_call,
            call,
            schedule_to_close_timeout=self._remaining(),
            summary=self._summary,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return opening

    async def answer_in_time(self) -> RunResult:
        """Calls by activity, again and again until the run's timeout: nobody holds a connection for it.

        Raises as `answer_promptly` does.
        """
        return await self.told(self._call_until_answered(PATIENT))

    async def answer_about(self, data: Awaitable[JsonObject], *, opens_call: bool) -> RunResult:
        """As `answer_at_any_length`, or if it opens no call as `answer_in_time`, with more `data` for the agent that
        has to be had first, by an activity.
        """
        return await self.told(self._have_then_call(data, opens_call=opens_call))

    async def _have_then_call(self, data: Awaitable[JsonObject], *, opens_call: bool) -> RunResult:
        try:
            found = await data
        except ActivityError as error:
            self._raise_told(error)
        self._request = self._request.model_copy(update={"data": {**self._request.data, **found}})
        if opens_call:
            return await self._open_then_call(PATIENT)
        return await self._call_until_answered(PATIENT)

    async def answer_streaming(self) -> RunResult:
        """Begins the call within this workflow task, and goes on with it by activity, which tells what the agent
        says; its client waits, as for `answer_promptly`.

        Raises as that does.
        """
        return await self.told(self._stream_until_answered())

    async def _stream_until_answered(self) -> RunResult:
        # A workflow task that is done again, long after the start, would make a call anew that some may have heard.
        fresh = workflow.now() - self._started < _FRESH
        done_again = not fresh and workflow.info().get_current_history_length() > _FIRST_TASK
        opened = self._run.opens_stream and done_again
        if self._run.opens_stream and self._run.target is None and fresh:
            self._check_deadline()
            try:
                opening = await self._open(self._call(PROMPT, streamed=True))
            except FailureError as error:
                refused = run_error(error, self._run.timeout).verdict is Verdict.AGENT_REJECTED
                if is_cancelled_exception(error) or (refused and workflow.patched(_OVER_AT_ONCE)):
                    self._raise_told(error)
                opened = True  # the activity meets the same, and knows what to do
            else:
                if opening.outcome is not None and workflow.patched(_OVER_AT_ONCE):
                    return self._result(opening.outcome)
                opened = opening.begun
        return await self._call_until_answered(PROMPT, streamed=True, opened=opened)

    async def cancel(self) -> None:
        """Answers the `cancel` signal: asks Temporal to cancel this run."""
        self._tell("is told to stop")
        info = workflow.info()
        await workflow.execute_local_activity_method(
            RunControl.request_cancellation,
            CancelRequest(workflow_id=info.workflow_id, workflow_run_id=info.run_id),
            schedule_to_close_timeout=timedelta(seconds=60),
        )

    async def _call_until_answered(
        self, patience: Patience, prior_attempts: int = 0, *, streamed: bool = False, opened: bool = False
    ) -> RunResult:
        self._check_deadline()
        self._tell("is at work")
        if self._run.target is not None:
            return await self._ask_workflow(self._run.target, patience)
        forgetting = asyncio.create_task(self._stream.forget_what_was_told())
        try:
            outcome = await workflow.execute_activity_method(
                AgentCalls.call_agent,
                self._call(patience, prior_attempts, streamed=streamed, opened=opened),
                summary=self._summary,
                schedule_to_close_timeout=self._remaining(),
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                retry_policy=patience.retries(prior_attempts),
            )
        except ActivityError as error:
            self._raise_told(error)
        finally:
            forgetting.cancel()
        return self._result(outcome)

    async def _ask_workflow(self, target: WorkflowTarget, patience: Patience) -> RunResult:
        asking = WorkflowAgent(target, self._request, self._deadline, self._tell)
        try:
            outcome = await asking.answered(patience)
        except ApplicationError as error:
            self._raise_told(error)
        return self._result(outcome)

    async def _pause_after(self, error: FailureError) -> None:
        """Waits before the second attempt, unless there shall be none."""
        failed = run_error(error, self._run.timeout)
        if is_cancelled_exception(error) or not failed.verdict.retryable:
            self._raise_told(error)
        self._tell(f"failed once ({failed.verdict}) and is asked again")
        pause = FIRST_PAUSE if failed.retry_after is None else timedelta(seconds=failed.retry_after)
        await workflow.sleep(min(pause, self._remaining()))

    def _raise_told(self, error: FailureError) -> NoReturn:
        if is_cancelled_exception(error):
            self._tell("was stopped")
            raise error
        failed: RunError = run_error(error, self._run.timeout)
        self._tell(f"failed: **{failed.verdict}**. {failed.detail}")
        raise failure_of(failed) from error

    def _check_deadline(self) -> None:
        # Also met when no worker was there in time.
        if workflow.now() >= self._deadline:
            raise deadline_exceeded(self._run.timeout)

    def _remaining(self) -> timedelta:
        return max(self._deadline - workflow.now(), timedelta(milliseconds=1))

    def _call(
        self, patience: Patience, prior_attempts: int = 0, *, streamed: bool = False, opened: bool = False
    ) -> AgentCall:
        return AgentCall(
            agent=self._run.agent,
            request=self._request,
            deadline=self._deadline,
            origin=self._run.origin,
            prior_attempts=prior_attempts,
            attempts=patience.attempts,
            waits=patience.waits,
            opened=opened,
            streamed=streamed,
            life=self._run.life,
        )

    def _result(self, outcome: AgentOutcome) -> RunResult:
        if workflow.now() > self._deadline + DEADLINE_GRACE:  # the API has reported it as failed
            raise deadline_exceeded(self._run.timeout)
        self._tell(f"has answered (attempt {outcome.attempt})")
        seconds = (workflow.now() - self._started).total_seconds()
        return RunResult(
            reply=outcome.reply,
            seconds=max(0.0, seconds),
            attempts=outcome.attempt,
            last_index=outcome.last_index,
        )

    def _tell(self, what: str) -> None:
        """Writes the run's present state where the Temporal UI shows it."""
        run = self._run
        workflow.set_current_details(
            f"Agent `{run.agent}`, task `{run.request.task}`: {what}.\n\n"
            f"Deadline {self._deadline:%Y-%m-%d %H:%M:%S} UTC."
        )
