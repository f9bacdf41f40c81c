"""Reads the open questions of runs and gives them answers."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import Field, JsonValue, TypeAdapter
from temporalio.client import Client, WorkflowExecution, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.updates import await_update
from sevenfold.api.http.problems import FieldError, ProblemError, ProblemType
from sevenfold.api.runs.approval_links import ApprovalLinks
from sevenfold.contracts.agents.questions import (
    ANSWER_INVALID,
    QUESTION_ANSWERED,
    QUESTION_UNKNOWN,
    QUESTIONS_MEMO,
    RESPOND_UPDATE,
    Question,
    QuestionResponse,
    RespondInput,
)
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.json.schemas import AnswerError
from sevenfold.contracts.payload import Payload

# How long a worker may take to accept an answer.
_LIMIT = timedelta(seconds=5)

# A stream publishes a question before its run takes answers: an early answer is retried for this long.
_EARLY_SECONDS, _EARLY_INTERVAL = 3.0, 0.1

_QUESTIONS = TypeAdapter(list[Question])
_PROBLEMS = {
    ANSWER_INVALID: ProblemType.INVALID,
    QUESTION_UNKNOWN: ProblemType.NOT_FOUND,
    QUESTION_ANSWERED: ProblemType.QUESTION_ANSWERED,
}


class InputRequest(Payload):
    """An open question. `responseSchema` is the JSON Schema of an answer's `content`."""

    id: str
    message: str
    response_schema: JsonValue
    expires_at: datetime
    url: str | None = Field(
        default=None, description="A page where it can be answered without a key; null without SEVENFOLD_SECRET_KEY."
    )


def without_links(requests: Sequence[InputRequest]) -> list[InputRequest]:
    """Returns questions without the links, which need no key."""
    return [one.model_copy(update={"url": None}) for one in requests]


@dataclass(frozen=True)
class ApprovalDesk:
    """The open questions are in a memo of their run, so that reading them needs no worker."""

    client: Client
    links: ApprovalLinks

    async def read(self, execution: WorkflowExecution) -> list[Question]:
        """Returns the open questions of an open run."""
        if execution.close_time is not None:
            return []
        return _QUESTIONS.validate_python((await execution.memo()).get(QUESTIONS_MEMO) or [])

    def show(self, tenant: str, run_id: str, questions: list[Question]) -> list[InputRequest]:
        """Returns questions with their links."""
        return [InputRequest(**dict(one), url=self.links.build(tenant, run_id, one)) for one in questions]

    async def respond(self, tenant: str, run_id: str, responses: Mapping[str, QuestionResponse]) -> None:
        """Gives answers. The same answers again change nothing.

        Raises 404 for unknown questions, 409 for those that were answered otherwise, 422 for what does not fit the
        schema, and UpdateTimeoutError if no worker accepts them within 5 s.
        """
        given = RespondInput(responses=dict(responses))
        waited = 0.0
        while True:
            try:
                await self._update(tenant, run_id, given)
                return
            except ProblemError as problem:
                is_early = problem.problem_type is ProblemType.NOT_FOUND and waited < _EARLY_SECONDS
                if not is_early or not await self._may_ask_yet(tenant, run_id, given):
                    raise
            await asyncio.sleep(_EARLY_INTERVAL)
            waited += _EARLY_INTERVAL

    async def _update(self, tenant: str, run_id: str, given: RespondInput) -> None:
        body = given.model_dump_json().encode()
        update_id = f"respond-{hashlib.sha256(body).hexdigest()[:32]}"
        handle = self.client.get_workflow_handle(build_workflow_id(tenant, run_id))
        try:
            await await_update(handle.execute_update(RESPOND_UPDATE, given, id=update_id), _LIMIT)
        except WorkflowUpdateFailedError as error:
            raise _to_problem(run_id, error) from error
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            raise ProblemError(
                ProblemType.QUESTION_ANSWERED, "The run has ended, so it takes no answers.", run_id=run_id
            ) from error

    async def _may_ask_yet(self, tenant: str, run_id: str, given: RespondInput) -> bool:
        """Whether an open run asks nothing yet, or asks just this by now."""
        description = await self.client.get_workflow_handle(build_workflow_id(tenant, run_id)).describe()
        questions = await self.read(description)
        is_asked = any(one.id in given.responses for one in questions)
        return description.close_time is None and (is_asked or not questions)


def _to_problem(run_id: str, error: WorkflowUpdateFailedError) -> Exception:
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type not in _PROBLEMS:
        return error
    errors = [AnswerError.model_validate(one) for one in cause.details]
    return ProblemError(
        _PROBLEMS[cause.type],
        cause.message,
        errors=[FieldError(pointer=one.pointer, detail=one.detail) for one in errors],
        run_id=run_id,
    )
