"""The kind `workflow`: an agent that is a workflow itself, in any language, run as a child.

It gets one object, as an agent behind HTTP does, and beside it `timeout` (the seconds that are left) and `deadline`;
it returns `{response, confidence?, data?, usage?}`, or a text. It tells how far it is by the signal `progress` to its
parent, `{percent, note}`. It fails for good by an ApplicationError of the type `AgentRejected`, or any that is not to
be retried; after other failures it is asked again, by a new child.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
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

from adapters.agents.replies import as_reply
from adapters.payload_directory import THRESHOLD_BYTES
from contracts.agent import AgentRequest, Progress, WorkflowTarget
from contracts.calls import AgentOutcome
from contracts.runs import PROGRESS, RunError
from contracts.verdicts import AgentRejected, Verdict
from workflows.failures import failure_of
from workflows.patience import FIRST_PAUSE, Patience

# A child that does not heed its cancellation is ended so much later.
_LENIENCE = timedelta(seconds=60)

# It has retries of its own, and an attempt costs the run's history a dozen events: those of a day stay below 1,000.
_LONGEST_PAUSE = timedelta(minutes=30)

Tell = Callable[[str], None]


def hear_progress(tell: Tell) -> None:
    """Takes the child's signals. They stay in the memo, where pollers read them without a worker."""

    shown: Progress | None = None

    def progress(said: Progress) -> None:
        nonlocal shown
        if shown is not None and abs(said.percent - shown.percent) < 1 and said.note == shown.note:
            return
        shown = said
        workflow.upsert_memo({PROGRESS: said})
        tell(f"is at work: {said.percent:g} %{f', {said.note}' if said.note else ''}")

    workflow.set_signal_handler("progress", progress)


class WorkflowAgent:
    """Asks one workflow, attempt by attempt."""

    def __init__(self, target: WorkflowTarget, request: AgentRequest, deadline: datetime, tell: Tell) -> None:
        self._target = target
        self._request = request
        self._deadline = deadline
        self._tell = tell

    async def answered(self, patience: Patience) -> AgentOutcome:
        """Its reply. Raises ApplicationError with a verdict as its type, or a cancellation."""
        for attempt in count(1):
            self._tell(f"is at work as `{self._child_id(attempt)}`")
            try:
                reply = as_reply(await self._asked(attempt))
                return AgentOutcome(reply=reply, attempt=attempt)
            except AgentRejected as error:  # it answered what is no reply
                failed = RunError(verdict=error.verdict, detail=error.detail, attempts=attempt)
            except ChildWorkflowError as error:
                failed = _verdict(error, attempt)
            if not failed.verdict.retryable or attempt == patience.attempts:
                break
            self._tell(f"failed ({failed.verdict}), and is asked again")
            await workflow.sleep(min(_pause(attempt, failed.retry_after), self._remaining()))
            if self._remaining() <= timedelta():
                failed = self._too_late(attempt, failed.detail)
                break
        raise failure_of(failed)

    async def _asked(self, attempt: int) -> Any:
        given = self._input(attempt)
        if len(to_json(given)) > THRESHOLD_BYTES:
            raise AgentRejected(f"The request has more than {THRESHOLD_BYTES} bytes: too many for a workflow agent.")
        child = await workflow.start_child_workflow(
            self._target.workflow,
            given,
            id=self._child_id(attempt),
            task_queue=self._target.task_queue,
            # A child whose workers are away could not confirm that it has ended.
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_REQUESTED,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            execution_timeout=self._remaining() + _LENIENCE,
            static_summary=f"{self._request.task}, attempt {attempt}",
        )
        done, _ = await workflow.wait([child], timeout=self._remaining().total_seconds())
        if not done:
            child.cancel()
            await workflow.wait([child])
            raise failure_of(self._too_late(attempt))
        return child.result()

    def _input(self, attempt: int) -> dict[str, Any]:
        request = self._request.model_copy(update={"attempt": attempt})
        return {
            **request.model_dump(mode="json", by_alias=True),
            "timeout": self._remaining().total_seconds(),
            "deadline": self._deadline.isoformat(),
        }

    def _child_id(self, attempt: int) -> str:
        return f"{workflow.info().workflow_id}/{attempt}"

    def _remaining(self) -> timedelta:
        return max(self._deadline - workflow.now(), timedelta())

    def _too_late(self, attempt: int, last: str = "") -> RunError:
        detail = "The agent had not answered when the run's time was over."
        if last:
            detail += f" Its last attempt failed: {last}"
        return RunError(verdict=Verdict.DEADLINE_EXCEEDED, detail=detail, attempts=attempt)


def _pause(attempt: int, wanted: float | None) -> timedelta:
    if wanted is not None:
        return timedelta(seconds=wanted)
    return min(_LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 1, 30))


def _verdict(error: ChildWorkflowError, attempt: int) -> RunError:
    match error.cause:
        case ApplicationError(type=kind) as cause if kind in list(Verdict):
            pause = cause.next_retry_delay
            return RunError(
                verdict=Verdict(kind),
                detail=cause.message,
                attempts=attempt,
                retry_after=None if pause is None else pause.total_seconds(),
            )
        case ApplicationError(non_retryable=True) as cause:
            detail = f"The agent's workflow failed for good: {cause.message}"
            return RunError(verdict=Verdict.AGENT_REJECTED, detail=detail, attempts=attempt)
        case ApplicationError(type=kind):
            detail = f"The agent's workflow failed with {kind or 'an error'}."
            return RunError(verdict=Verdict.AGENT_UNAVAILABLE, detail=detail, attempts=attempt)
        case CancelledError() | TerminatedError():
            detail = "The agent's workflow was ended by an operator."
            return RunError(verdict=Verdict.TERMINATED, detail=detail, attempts=attempt)
    return RunError(
        verdict=Verdict.AGENT_UNAVAILABLE, detail="The agent's workflow ran out of time.", attempts=attempt
    )
