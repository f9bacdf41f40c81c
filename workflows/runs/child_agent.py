"""The agent kind `workflow`: a Temporal workflow of any language, run as a child workflow.

Its input is one object: the request as an HTTP agent gets it, plus `timeout` (remaining seconds) and `deadline` (ISO
8601). It returns `{response, confidence?, data?, usage?}` or a string. It reports progress by the signal `progress`
with `{percent, note}` to its parent, and what the attempt has used so far by the signal `usage` with `{inputTokens,
outputTokens}`. It asks people by the signal `ask` with `{id, message, responseSchema, expiresAt}`, and gets the
signal `answer` with `{id, action, content}`; the run's timeout rests meanwhile. An ApplicationError of the type
`AgentRejected`, or a non-retryable one, ends the run; after any other failure a new child makes the next attempt.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

from pydantic_core import to_json
from temporalio import workflow
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    TerminatedError,
)
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from sevenfold.activities.runs.workflow_agent_budgets import WorkflowAgentBudgets
from sevenfold.adapters.agents.replies import as_reply
from sevenfold.adapters.payloads.directory import THRESHOLD_BYTES
from sevenfold.contracts.agents.errors import DEADLINE_PASSED, AgentRejected, ErrorCode
from sevenfold.contracts.agents.interface import Progress, Reply, Usage, WorkflowTarget
from sevenfold.contracts.agents.questions import MAX_QUESTIONS, AskedQuestion, Question, to_agent_answers
from sevenfold.contracts.identity import child_workflow_id
from sevenfold.contracts.runs.calls import AgentOutcome, BudgetCheck, LimitCheck, WorkflowAgentUsage
from sevenfold.contracts.runs.run import PROGRESS_MEMO, WAITING_MEMO, RunError, RunInput, Waiting
from sevenfold.workflows.runs.failures import to_application_error
from sevenfold.workflows.runs.retry_profiles import INITIAL_INTERVAL, RetryProfile
from sevenfold.workflows.runs.run_state import RunState

# The child has retries of its own, and an attempt adds a dozen events to the run's history: the attempts of a day
# stay below 1,000 events.
_MAX_INTERVAL = timedelta(minutes=30)

_LOCAL_ACTIVITY_TIMEOUT = timedelta(seconds=60)

_NO_REPORT = Usage()

# A budget may be raised, so a call that waits for it looks again.
_MAX_PAUSE = timedelta(seconds=60)

SetDetails = Callable[[str], None]
ReportProgress = Callable[[Progress], None]


def register_progress_handler(set_details: SetDetails, report_progress: ReportProgress) -> None:
    """Handles the child's `progress` signals: reports them, and writes them to the memo, where pollers read them
    without a worker.

    A change of less than 1 % with the same note is dropped.
    """

    shown: Progress | None = None

    def progress(update: Progress) -> None:
        nonlocal shown
        if shown is not None and abs(update.percent - shown.percent) < 1 and update.note == shown.note:
            return
        shown = update
        workflow.upsert_memo({PROGRESS_MEMO: update})
        report_progress(update)
        set_details(f"call is running: {update.percent:g} %{f', {update.note}' if update.note else ''}")

    workflow.set_signal_handler("progress", progress)


class WorkflowAgent:
    """Calls one workflow agent, one child workflow per attempt."""

    def __init__(
        self,
        run: RunInput,
        target: WorkflowTarget,
        state: RunState,
    ) -> None:
        self._run = run
        self._target = target
        self._state = state
        self._attempts = 0
        # What earlier attempts have reported, and the current one.
        self._earlier_usage, self._usage = _NO_REPORT, _NO_REPORT
        self._asked: list[Question] = []
        workflow.set_signal_handler("usage", self._handle_usage)
        workflow.set_signal_handler("ask", self._handle_ask)

    def _handle_usage(self, usage: Usage) -> None:
        self._usage = self._usage.at_least(usage)

    def _handle_ask(self, asked: AskedQuestion) -> None:
        """A child's question. A malformed one is ignored: anybody who can signal may have sent it."""
        question = asked.to_question(workflow.now())
        if question is not None and len(self._asked) < MAX_QUESTIONS:
            self._asked.append(question)

    async def call(self, profile: RetryProfile) -> AgentOutcome:
        """Returns the reply. Raises ApplicationError with an ErrorCode as its type, or a cancellation."""
        for attempt in count(1):
            await self._wait_for_budget(profile)
            await self._check_limits()
            self._state.set_details(f"child workflow `{self._child_id(attempt)}` is running")
            try:
                return AgentOutcome(reply=await self._make_attempt(attempt), attempts=attempt)
            except AgentRejected as error:  # The result is not a valid reply.
                failed = RunError(code=error.code, detail=error.detail, attempts=attempt)
            except ChildWorkflowError as error:
                failed = _to_run_error(error, attempt)
            if not failed.code.is_retryable or attempt == profile.max_attempts:
                break
            self._state.set_details(f"attempt {attempt} failed (`{failed.code}`), retrying")
            await self._pause(failed.detail, _retry_delay(attempt, failed.retry_after))
            if self._remaining() <= timedelta():
                failed = self._deadline_error(attempt, failed.detail)
                break
        raise to_application_error(failed)

    async def _wait_for_budget(self, profile: RetryProfile) -> None:
        """Returns when the budget permits an attempt. Raises if it does not and the client waits."""
        while True:
            try:
                await workflow.execute_local_activity_method(
                    WorkflowAgentBudgets.check_budget,
                    BudgetCheck(key_id=self._run.key_id),
                    schedule_to_close_timeout=_LOCAL_ACTIVITY_TIMEOUT,
                )
                return
            except ApplicationError as error:
                refusal = RunError.model_validate(error.details[0])
                if not profile.waits_for_capacity:
                    raise to_application_error(refusal) from error
            self._state.set_details(f"call waits: {refusal.detail}")
            await self._pause(refusal.detail, min(timedelta(seconds=refusal.retry_after or 1.0), _MAX_PAUSE))
            if self._remaining() <= timedelta():
                raise to_application_error(self._deadline_error(self._attempts, refusal.detail))

    async def _pause(self, reason: str, pause: timedelta) -> None:
        """Sleeps until the deadline at most; clients are shown the reason."""
        pause = min(pause, self._remaining())
        workflow.upsert_memo({WAITING_MEMO: Waiting(reason=reason, until=workflow.now() + pause)})
        await workflow.sleep(pause)
        workflow.upsert_memo({WAITING_MEMO: None})

    async def _make_attempt(self, attempt: int) -> Reply:
        """Returns the child's reply. Counts the attempt, before the next one looks at the budget."""
        try:
            reply = as_reply(await self._run_child(attempt))
        except (AgentRejected, ChildWorkflowError, ApplicationError, asyncio.CancelledError):
            if self._attempts == attempt:  # The child has started.
                await self._record_usage(attempt, self._usage, has_failed=True)
            raise
        await self._record_usage(attempt, self._usage.at_least(reply.usage or _NO_REPORT), has_failed=False)
        return reply

    async def _record_usage(self, attempt: int, usage: Usage, *, has_failed: bool) -> None:
        used = WorkflowAgentUsage(
            agent=self._run.agent, key_id=self._run.key_id, attempt=attempt, has_failed=has_failed, usage=usage
        )
        await workflow.execute_local_activity_method(
            WorkflowAgentBudgets.record_usage, used, schedule_to_close_timeout=_LOCAL_ACTIVITY_TIMEOUT
        )

    async def _run_child(self, attempt: int) -> Any:
        child_input = self._input(attempt)
        if len(to_json(child_input)) > THRESHOLD_BYTES:
            raise AgentRejected(
                f"The request is larger than {THRESHOLD_BYTES:,} bytes, the limit of a workflow agent."
            )
        child = await workflow.start_child_workflow(
            self._target.workflow,
            child_input,
            id=self._child_id(attempt),
            task_queue=self._target.task_queue,
            # A child whose workers are down cannot confirm its end.
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_REQUESTED,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            static_summary=f"{self._state.request.task}, attempt {attempt}",
        )
        self._attempts = attempt
        self._earlier_usage, self._usage = self._sum_usage(), _NO_REPORT
        limits = asyncio.create_task(self._watch_limits())
        try:
            while not child.done() and not limits.done() and self._remaining() > timedelta():
                asking = asyncio.create_task(workflow.wait_condition(lambda: bool(self._asked)))
                await workflow.wait(
                    [child, limits, asking],
                    timeout=self._remaining().total_seconds(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                asking.cancel()
                if self._asked and not child.done():
                    await self._answer(child)
        finally:
            limits.cancel()
        if child.done():
            return child.result()
        child.cancel()
        await workflow.wait([child])
        if limits.done() and not limits.cancelled():
            limits.result()
        raise to_application_error(self._deadline_error(attempt))

    async def _answer(self, child: workflow.ChildWorkflowHandle[Any, Any]) -> None:
        """Waits for people's answers and passes them on, unless the child ends before."""
        questions, self._asked = self._asked, []
        waiting = asyncio.create_task(self._state.wait_for_answers(questions))
        try:
            await workflow.wait([child, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not waiting.done():
                waiting.cancel()
                self._state.questions.close(self._state.deadline)
        if child.done():
            return
        for question in questions:
            answer = self._state.questions.answers[question.id]
            await child.signal("answer", to_agent_answers({question.id: answer})[question.id])

    def _sum_usage(self) -> Usage:
        """Returns what all attempts have reported."""
        return self._earlier_usage.add(self._usage)

    async def _watch_limits(self) -> None:
        """Raises when the attempt reports that the run has used what it may."""
        while True:
            checked = self._usage
            await workflow.wait_condition(lambda: self._usage != checked)  # noqa: B023  (awaited at once)
            await self._check_limits()

    async def _check_limits(self) -> None:
        """Raises ApplicationError with the type RunLimitReached if the run has used what it may."""
        usage = self._sum_usage()
        if self._run.limits is None or not self._attempts:
            return
        await workflow.execute_local_activity_method(
            WorkflowAgentBudgets.check_limits,
            LimitCheck(agent=self._run.agent, limits=self._run.limits, attempts=self._attempts, usage=usage),
            schedule_to_close_timeout=_LOCAL_ACTIVITY_TIMEOUT,
        )

    def _input(self, attempt: int) -> dict[str, Any]:
        request = self._state.request.model_copy(update={"attempt": attempt})
        return {
            **request.model_dump(mode="json", by_alias=True),
            "timeout": self._remaining().total_seconds(),
            "deadline": self._state.deadline.isoformat(),
        }

    def _child_id(self, attempt: int) -> str:
        return child_workflow_id(workflow.info().workflow_id, attempt, uses_codec=self._target.codec)

    def _remaining(self) -> timedelta:
        return max(self._state.deadline - workflow.now(), timedelta())

    def _deadline_error(self, attempt: int, last: str = "") -> RunError:
        detail = DEADLINE_PASSED
        if last:
            detail += f" Its last attempt failed: {last}"
        return RunError(code=ErrorCode.DEADLINE_EXCEEDED, detail=detail, attempts=attempt)


def _retry_delay(attempt: int, requested: float | None) -> timedelta:
    if requested is not None:
        return timedelta(seconds=requested)
    return min(_MAX_INTERVAL, INITIAL_INTERVAL * 2.0 ** min(attempt - 1, 30))


def _to_run_error(error: ChildWorkflowError, attempt: int) -> RunError:
    match error.cause:
        case ApplicationError(type=kind) as cause if kind in list(ErrorCode):
            pause = cause.next_retry_delay
            return RunError(
                code=ErrorCode(kind),
                detail=cause.message,
                attempts=attempt,
                retry_after=None if pause is None else pause.total_seconds(),
            )
        case ApplicationError(non_retryable=True) as cause:
            detail = f"The agent's workflow failed with a non-retryable error: {cause.message}"
            return RunError(code=ErrorCode.AGENT_REJECTED, detail=detail, attempts=attempt)
        case ApplicationError(type=kind):
            detail = f"The agent's workflow failed with {kind or 'an error'}."
            return RunError(code=ErrorCode.AGENT_UNAVAILABLE, detail=detail, attempts=attempt)
        case CancelledError() | TerminatedError():
            detail = "An operator cancelled or terminated the agent's workflow."
            return RunError(code=ErrorCode.TERMINATED, detail=detail, attempts=attempt)
    return RunError(code=ErrorCode.AGENT_UNAVAILABLE, detail="The agent's workflow timed out.", attempts=attempt)
