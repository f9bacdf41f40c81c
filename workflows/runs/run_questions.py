"""The questions of a run: open until people have answered them or they expire."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ApplicationError

from sevenfold.contracts.agents.questions import (
    ANSWER_INVALID,
    INPUT_ATTRIBUTE,
    MAX_CONTENT_BYTES,
    QUESTION_ANSWERED,
    QUESTION_UNKNOWN,
    QUESTIONS_MEMO,
    RESPOND_UPDATE,
    Action,
    Answer,
    Question,
    QuestionResponse,
    RespondInput,
    ResponseAction,
)
from sevenfold.contracts.json.schemas import AnswerError, check_content
from sevenfold.contracts.runs.run import DEADLINE_MEMO

_INPUT_REQUIRED = SearchAttributeKey.for_bool(INPUT_ATTRIBUTE)


class RunQuestions:
    """States of a question: open → answered, declined or cancelled by the update `respond`; open → expired.

    The update's validator refuses what does not fit, and leaves nothing in the history. `answers` has what has ended,
    by the questions' ids.
    """

    def __init__(self) -> None:
        self._open: dict[str, Question] = {}
        self.answers: dict[str, Answer] = {}
        workflow.set_update_handler(RESPOND_UPDATE, self._respond, validator=self._validate)

    async def wait(self, questions: Sequence[Question]) -> timedelta:
        """Waits until all questions have ended; returns how long that took. The run's deadline rests meanwhile."""
        started_at = workflow.now()
        self._open = {one.id: one for one in questions if one.id not in self.answers}
        workflow.upsert_memo({QUESTIONS_MEMO: list(self._open.values()), DEADLINE_MEMO: None})
        workflow.upsert_search_attributes([_INPUT_REQUIRED.value_set(True)])
        while self._open:
            self._expire(workflow.now())
            if not self._open:
                break
            next_expiry = min(one.expires_at for one in self._open.values())
            count = len(self._open)
            try:
                await workflow.wait_condition(
                    lambda: len(self._open) < count,  # noqa: B023  (awaited at once)
                    timeout=max(next_expiry - workflow.now(), timedelta(milliseconds=1)),
                    timeout_summary="a question expires",
                )
            except TimeoutError:
                self._expire(workflow.now())
            if self._open:
                workflow.upsert_memo({QUESTIONS_MEMO: list(self._open.values())})
        return workflow.now() - started_at

    def close(self, deadline: datetime) -> None:
        """The run continues, until this deadline."""
        workflow.upsert_memo({QUESTIONS_MEMO: None, DEADLINE_MEMO: deadline.isoformat()})
        workflow.upsert_search_attributes([_INPUT_REQUIRED.value_set(False)])

    def _expire(self, now: datetime) -> None:
        for question in list(self._open.values()):
            if question.expires_at <= now:
                self.answers[question.id] = Answer(id=question.id, action=Action.EXPIRE)
                del self._open[question.id]

    def _respond(self, given: RespondInput) -> list[str]:
        """Takes answers; returns the ids of the questions that are still open. The same answer again changes
        nothing.
        """
        now = workflow.now()
        for question_id, response in given.responses.items():
            if self._open.pop(question_id, None) is not None:
                self.answers[question_id] = _to_answer(question_id, response, now)
        return sorted(self._open)

    def _validate(self, given: RespondInput) -> None:
        """Raises ApplicationError with AnswerErrors as its details."""
        if not given.responses:
            raise _refuse(ANSWER_INVALID, [AnswerError(pointer="/responses", detail="must name a question")])
        # The timer of an expired question may still be waiting for its task.
        late = [key for key in given.responses if key in self._open and self._open[key].expires_at <= workflow.now()]
        if late:
            raise _refuse(QUESTION_ANSWERED, [_error(key, "has expired") for key in late])
        unknown = [key for key in given.responses if key not in self._open and key not in self.answers]
        if unknown:
            open_ones = ", ".join(sorted(self._open)) or "none"
            detail = f"there is no such question; open: {open_ones}"
            raise _refuse(QUESTION_UNKNOWN, [_error(key, detail) for key in unknown])
        changed = [key for key, one in given.responses.items() if key in self.answers and self._differs(key, one)]
        if changed:
            raise _refuse(QUESTION_ANSWERED, [_error(key, f"is {self._describe(key)} already") for key in changed])
        if errors := [error for key, one in given.responses.items() for error in self._check(key, one)]:
            raise _refuse(ANSWER_INVALID, errors)

    def _differs(self, question_id: str, response: QuestionResponse) -> bool:
        before = self.answers[question_id]
        return (str(before.action), before.content) != (str(response.action), _content(response))

    def _describe(self, question_id: str) -> str:
        words = {Action.ACCEPT: "answered", Action.DECLINE: "declined", Action.CANCEL: "cancelled"}
        return words.get(self.answers[question_id].action, "expired")

    def _check(self, question_id: str, response: QuestionResponse) -> list[AnswerError]:
        question = self._open.get(question_id)
        if question is None or response.action is not ResponseAction.ACCEPT:
            return []
        if len(response.model_dump_json().encode()) > MAX_CONTENT_BYTES:
            return [_error(question_id, f"has more than {MAX_CONTENT_BYTES:,} bytes", "/content")]
        return check_content(question.response_schema, response.content, f"/responses/{question_id}/content")


def _content(response: QuestionResponse) -> object:
    return response.content if response.action is ResponseAction.ACCEPT else None


def _to_answer(question_id: str, response: QuestionResponse, now: datetime) -> Answer:
    is_accepted = response.action is ResponseAction.ACCEPT
    return Answer(
        id=question_id,
        action=Action(response.action),
        content=response.content if is_accepted else None,
        answered_at=now,
    )


def _error(question_id: str, detail: str, inside: str = "") -> AnswerError:
    return AnswerError(pointer=f"/responses/{question_id}{inside}", detail=detail)


def _refuse(kind: str, errors: list[AnswerError]) -> ApplicationError:
    message = "; ".join(f"{one.pointer}: {one.detail}" for one in errors[:3])
    return ApplicationError(message, *errors, type=kind)
