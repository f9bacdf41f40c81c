"""Where a call's steps are kept, and how an agent's results and questions become what is kept."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from temporalio import activity
from temporalio.service import RPCError

from sevenfold.activities.identity import current_workflow_id
from sevenfold.adapters.temporal.step_ledger import StepLedger, StepsUnreadableError
from sevenfold.contracts.errors import AgentRejected, AgentUnavailable
from sevenfold.contracts.json_schema import InvalidSchemaError, check_schema
from sevenfold.contracts.questions import BOOLEAN, MAX_EXPIRY_SECONDS, Question
from sevenfold.contracts.steps import MAX_STEP_BYTES, StepRecord
from sevenfold.contracts.strict_json import JsonLimitError, check_answer


class Ledger(Protocol):
    """Where steps are kept: in the run's history, or in the checkpoint of a job's chunk."""

    async def load(self) -> list[StepRecord]: ...

    async def record(self, record: StepRecord) -> None: ...


def current_ledger(earlier_executions: Sequence[str]) -> StepLedger:
    """Returns the ledger of the run that the current activity belongs to."""
    info = activity.info()
    return StepLedger(activity.client(), current_workflow_id(), info.workflow_run_id or "", earlier_executions)


async def load_steps(ledger: Ledger) -> list[StepRecord]:
    """Returns the steps of earlier attempts and turns. Raises AgentUnavailable."""
    try:
        return await ledger.load()
    except (RPCError, StepsUnreadableError) as error:
        raise AgentUnavailable("The run's earlier steps cannot be read now.") from error


def to_json_result(name: str, result: Any) -> Any:
    """Returns the result as JSON has it. Raises AgentRejected."""
    try:
        found = to_jsonable_python(result)
        check_answer({"result": found})
        size = len(json.dumps(found, ensure_ascii=False).encode())
    except (PydanticSerializationError, JsonLimitError, ValueError, RecursionError) as error:
        raise AgentRejected(f"The step {name} returned what cannot be encoded as JSON: {error}.") from error
    if size > MAX_STEP_BYTES:
        raise AgentRejected(
            f"The step {name} returned more than {MAX_STEP_BYTES:,} bytes. Store it, and return where."
        )
    return found


def to_question(asked: Mapping[str, Any], number: int) -> Question:
    """Returns the question. Raises AgentRejected."""
    schema = BOOLEAN if asked["schema"] is None else asked["schema"]
    seconds = asked["expires_in"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= MAX_EXPIRY_SECONDS:
        raise AgentRejected("The expires_in of a question is not from 1 second to 365 days.")
    try:
        check_schema(schema)
        return Question(
            id=asked["id"] or f"question-{number}",
            message=asked["message"],
            response_schema=schema,
            expires_at=datetime.now(UTC) + timedelta(seconds=seconds),
        )
    except InvalidSchemaError as error:
        raise AgentRejected(f"The schema of a question cannot be used: {error}") from error
    except ValidationError as error:
        where = ", ".join(str(one["loc"][0]) for one in error.errors())
        raise AgentRejected(f"A question has an invalid {where}.") from error
