"""Builds the questions of a call, with ids that are the same in every attempt and turn of its run."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from sevenfold.contracts.agents.errors import AgentRejected, StepMismatch
from sevenfold.contracts.agents.questions import BOOLEAN, MAX_EXPIRY_SECONDS, Question
from sevenfold.contracts.json.schema_cost import InvalidSchemaError
from sevenfold.contracts.json.schemas import check_schema


class QuestionBuilder:
    """The questions of one call. Without an id of its own a question is identified by its text and schema, so that no
    answer goes to another one, regardless of their order. Where the agent's own code asks, one question after
    the other, the number is part of the id: then a text that differs from that of the earlier turn is noticed.
    `answered`: the ids of questions with an answer.
    """

    def __init__(self, answered: Collection[str]) -> None:
        self._answered = answered
        self._occurrences: Counter[str] = Counter()

    def build(self, asked: Mapping[str, Any]) -> Question:
        """Returns the question. Raises AgentRejected and StepMismatch."""
        return _to_question(asked, asked["id"] or self._identify(asked))

    def _identify(self, asked: Mapping[str, Any]) -> str:
        text = json.dumps([asked["message"], asked["schema"]], sort_keys=True, default=repr)
        digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
        if not asked["is_main"]:
            self._occurrences[digest] += 1
            count = self._occurrences[digest]
            return f"question-{digest}" + (f"-{count}" if count > 1 else "")
        self._occurrences["main"] += 1
        number = self._occurrences["main"]
        prefix = f"question-{number}-"
        if any(one.startswith(prefix) and one != prefix + digest for one in self._answered):
            raise StepMismatch(
                f"Question {number} of the run had another text or schema when it was answered: the agent's code was "
                "changed, or its text depends on something that changes. Give the question an id."
            )
        return prefix + digest


def _to_question(asked: Mapping[str, Any], question_id: str) -> Question:
    """Returns the question. Raises AgentRejected."""
    schema = BOOLEAN if asked["schema"] is None else asked["schema"]
    seconds = asked["expires_in"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= MAX_EXPIRY_SECONDS:
        raise AgentRejected("The expires_in of a question is not from 1 second to 365 days.")
    try:
        check_schema(schema)
        return Question(
            id=question_id,
            message=asked["message"],
            response_schema=schema,
            expires_at=datetime.now(UTC) + timedelta(seconds=seconds),
        )
    except InvalidSchemaError as error:
        raise AgentRejected(f"The schema of a question cannot be used: {error}") from error
    except ValidationError as error:
        where = ", ".join(str(one["loc"][0]) for one in error.errors())
        raise AgentRejected(f"A question has an invalid {where}.") from error
