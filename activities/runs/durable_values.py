"""Where a call's steps are kept, and how an agent's results and questions become what is kept."""

import json
from collections.abc import Sequence
from typing import Any, Protocol

from pydantic_core import PydanticSerializationError, to_jsonable_python
from temporalio import activity
from temporalio.service import RPCError

from sevenfold.activities.identity import current_workflow_id
from sevenfold.adapters.temporal.step_store import StepStore, StepsUnreadableError
from sevenfold.contracts.agents.errors import AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.steps import MAX_STEP_BYTES, StepRecord
from sevenfold.contracts.json.strict import JsonLimitError, check_answer

# Temporal ends a run whose history has more than 50 MB. Results from 256 kB on are stored outside it.
_MAX_HISTORY_BYTES, _MAX_INLINE_BYTES, _REFERENCE_BYTES = 30_000_000, 256_000, 1_000


class HistoryBudget:
    """What the steps of a run add to its history."""

    def __init__(self) -> None:
        self._bytes = 0

    def count(self, record: StepRecord) -> None:
        """Counts a step."""
        size = len(record.model_dump_json())
        self._bytes += size if size < _MAX_INLINE_BYTES else _REFERENCE_BYTES

    def check(self) -> None:
        """Raises AgentRejected if the steps are too large in all."""
        if self._bytes > _MAX_HISTORY_BYTES:
            raise AgentRejected(
                f"The steps of the run have returned more than {_MAX_HISTORY_BYTES:,} bytes. Store what they "
                "find, and return where."
            )


class Store(Protocol):
    """Where steps are kept: in the run's history, or in the checkpoint of a job's chunk."""

    async def load(self) -> list[StepRecord]: ...

    async def record(self, record: StepRecord) -> None: ...


def current_step_store(earlier_executions: Sequence[str]) -> StepStore:
    """Returns the step store of the run that the current activity belongs to."""
    info = activity.info()
    return StepStore(activity.client(), current_workflow_id(), info.workflow_run_id or "", earlier_executions)


async def load_steps(store: Store) -> list[StepRecord]:
    """Returns the steps of earlier attempts and turns. Raises AgentUnavailable."""
    try:
        return await store.load()
    except (RPCError, StepsUnreadableError) as error:
        raise AgentUnavailable("The run's earlier steps cannot be read now.") from error


def to_json_result(name: str, result: Any) -> Any:
    """Returns the result as JSON has it. Raises AgentRejected."""
    try:
        found = to_jsonable_python(result)
        check_answer({"result": found})
        size = len(json.dumps(found, ensure_ascii=False, allow_nan=False).encode())
    except (PydanticSerializationError, JsonLimitError, ValueError, RecursionError) as error:
        raise AgentRejected(f"The step {name} returned what cannot be encoded as JSON: {error}.") from error
    if size > MAX_STEP_BYTES:
        raise AgentRejected(
            f"The step {name} returned more than {MAX_STEP_BYTES:,} bytes. Store it, and return where."
        )
    return found
