"""Questions that agents ask people: as they are kept, shown and answered."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from sevenfold.contracts.agents.asking import DEFAULT_EXPIRY
from sevenfold.contracts.agents.steps import StreamMark
from sevenfold.contracts.json.schema_cost import InvalidSchemaError
from sevenfold.contracts.json.schemas import check_schema
from sevenfold.contracts.payload import Payload, RequestBody

# The memo with the open questions of a run, and the search attribute of runs that have any.
QUESTIONS_MEMO = "questions"
INPUT_ATTRIBUTE = "InputRequired"

# The update that answers questions, and the types of its refusals.
RESPOND_UPDATE = "respond"
QUESTION_UNKNOWN, QUESTION_ANSWERED, ANSWER_INVALID = "QuestionUnknown", "QuestionAnswered", "AnswerInvalid"

MAX_QUESTIONS = 20
MAX_MESSAGE = 10_000
MAX_CONTENT_BYTES = 64_000
MAX_EXPIRY_SECONDS = 365 * 86_400.0

QuestionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

# What an agent gets that sets no schema: yes or no.
BOOLEAN: dict[str, JsonValue] = {"type": "boolean"}


class Action(StrEnum):
    """What was done with a question. `expire`: nobody answered in time."""

    ACCEPT = "accept"
    DECLINE = "decline"
    CANCEL = "cancel"
    EXPIRE = "expire"


class Question(Payload):
    """A question. `response_schema`: JSON Schema of the answer's content."""

    id: QuestionId
    message: str = Field(min_length=1, max_length=MAX_MESSAGE)
    response_schema: JsonValue
    expires_at: datetime


class AskedQuestion(Payload):
    """A question of a workflow agent, as it comes by signal."""

    id: Any = None
    message: Any = None
    response_schema: Any = None
    expires_at: Any = None

    def to_question(self, now: datetime) -> Question | None:
        """Returns the question; None if it is none."""
        schema = BOOLEAN if self.response_schema is None else self.response_schema
        try:
            check_schema(schema)
            return Question(
                id=self.id,
                message=self.message,
                response_schema=schema,
                expires_at=self.expires_at or now + DEFAULT_EXPIRY,
            )
        except (ValidationError, InvalidSchemaError):
            return None


class ResponseAction(StrEnum):
    """What a person does with a question."""

    ACCEPT = "accept"
    DECLINE = "decline"
    CANCEL = "cancel"


class QuestionResponse(RequestBody):
    """A person's answer: `content` belongs to `accept`, and fits the question's schema."""

    action: ResponseAction
    content: JsonValue = None


class Answer(Payload):
    """How a question ended."""

    id: str
    action: Action
    content: JsonValue = None
    answered_at: datetime | None = None


class RespondInput(Payload):
    """Input of the update `respond`: answers by the ids of their questions."""

    responses: dict[QuestionId, QuestionResponse]


class InputRequired(Exception):  # noqa: N818
    """The call has ended, because people have to answer first. `mark`: how far its text was."""

    def __init__(self, questions: list[Question], mark: StreamMark | None) -> None:
        super().__init__("The agent asks " + ", ".join(one.id for one in questions))
        self.questions = questions
        self.mark = mark


def to_agent_answers(answers: Mapping[str, Answer]) -> dict[str, dict[str, Any]]:
    """Returns answers as agents read them."""
    return {key: {"id": key, "action": str(one.action), "content": one.content} for key, one in answers.items()}
