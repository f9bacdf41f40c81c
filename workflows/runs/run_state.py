"""The state of an open run: its request, its deadline, its steps and questions."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from sevenfold.contracts.agents.questions import Question
from sevenfold.contracts.runs.calls import AgentCall, AgentOutcome
from sevenfold.contracts.runs.run import DEADLINE_GRACE, RunError, RunInput, RunResult
from sevenfold.workflows.runs.call_start import CallStart
from sevenfold.workflows.runs.failures import deadline_failure, to_application_error, to_run_error
from sevenfold.workflows.runs.retry_profiles import RetryProfile
from sevenfold.workflows.runs.run_questions import RunQuestions
from sevenfold.workflows.runs.run_steps import RunSteps


class RunState:
    """One run. `deadline` moves by the time in which people are asked, `waited` in all; `request` is that of the
    current turn. `announce` publishes the questions.
    """

    def __init__(self, run: RunInput, announce: Callable[[Sequence[Question]], Coroutine[Any, Any, None]]) -> None:
        self.run = run
        self._announce = announce
        self.summary = f"{run.agent}: {run.request.task}"
        self.started_at = workflow.info().workflow_start_time
        self.deadline = self.started_at + timedelta(seconds=run.timeout)
        self.waited = timedelta()
        self.request = run.request
        self.questions = RunQuestions()
        self._status = ""
        self.steps = RunSteps(lambda: self.set_details(self._status))

    async def wait_for_answers(self, questions: Sequence[Question]) -> None:
        """Waits until people have answered, and begins a new turn."""
        named = ", ".join(f"`{one.id}`" for one in questions)
        self.set_details(f"waits for input: {named}")
        announcement = asyncio.create_task(self._announce(questions))
        waited = await self.questions.wait(questions)
        await announcement
        self.deadline += waited
        self.waited += waited
        self.questions.close(self.deadline)
        self.request = self.request.model_copy(update={"turn": self.request.turn + 1})
        self.set_details("call continues with the answers")

    def raise_failure(self, error: FailureError) -> NoReturn:
        """Raises the failure that ends the run, or the cancellation."""
        if is_cancelled_exception(error):
            self.set_details("cancelled")
            raise error
        failed: RunError = to_run_error(error, self.run.timeout)
        self.set_details(f"failed: **{failed.code}**. {failed.detail}")
        raise to_application_error(failed) from error

    def check_deadline(self) -> None:
        """Raises the failure of a run whose deadline has passed."""
        # True also when no worker was available in time.
        if workflow.now() >= self.deadline:
            raise deadline_failure(self.run.timeout)

    def remaining(self) -> timedelta:
        """Returns the time until the deadline, which rests while people are asked."""
        return max(self.deadline - workflow.now(), timedelta(milliseconds=1))

    def build_call(self, progress_workflow_id: str | None, profile: RetryProfile, start: CallStart) -> AgentCall:
        """Returns the input of the activity that makes the call."""
        return AgentCall(
            agent=self.run.agent,
            request=self.request,
            deadline=self.deadline,
            request_context=self.run.request_context,
            prior_attempts=start.prior_attempts,
            max_attempts=profile.max_attempts,
            waits_for_capacity=profile.waits_for_capacity,
            started_inline=start.started_inline,
            is_streamed=start.is_streamed,
            generation=self.run.generation,
            progress_workflow_id=progress_workflow_id,
            key_id=self.run.key_id,
            limits=self.run.limits,
            prior_usage=start.prior_usage,
            answers=self.questions.answers,
            mark=start.mark,
            earlier_executions=self.run.earlier_executions,
        )

    def build_result(self, outcome: AgentOutcome) -> RunResult:
        """Returns the run's result; the time in which people were asked does not count."""
        if workflow.now() > self.deadline + DEADLINE_GRACE:  # The API has reported the run as failed.
            raise deadline_failure(self.run.timeout)
        assert outcome.reply is not None, "questions are handled before"  # noqa: S101
        self.set_details(f"answered at attempt {outcome.attempts}")
        seconds = (workflow.now() - self.started_at - self.waited).total_seconds()
        return RunResult(
            reply=outcome.reply,
            duration_seconds=max(0.0, seconds),
            attempts=outcome.attempts,
            last_index=outcome.last_index,
        )

    def set_details(self, status: str) -> None:
        """Writes the run's current details for the Temporal UI."""
        self._status = status
        workflow.set_current_details(
            f"Agent `{self.run.agent}`, task `{self.run.request.task}`: {status}.\n\n"
            f"Deadline {self.deadline:%Y-%m-%d %H:%M:%S} UTC." + self.steps.describe()
        )
