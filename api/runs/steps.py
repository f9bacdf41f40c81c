"""`POST /runs/{id}/steps`: an agent behind HTTP records a step of its run."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, JsonValue
from pydantic_core import to_json

from sevenfold.adapters.temporal.step_store import RunEndedError, StepStore, StepsUnreadableError
from sevenfold.api.dependencies import API_PREFIX, ClientDep, TenantDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.dependencies import RunReaderDep
from sevenfold.api.runs.router import RunId
from sevenfold.contracts.agents.steps import (
    MAX_STEP_BYTES,
    MAX_STEP_NAME,
    MAX_STEPS,
    StepFailure,
    StepRecord,
    StepStatus,
)
from sevenfold.contracts.payload import Payload, RequestBody

router = APIRouter(prefix=API_PREFIX, tags=["runs"], route_class=StrictJsonRoute)

# The key of a step is `name` or `name[key]`: no two may look the same.
_Name = Annotated[str, Field(min_length=1, max_length=MAX_STEP_NAME, pattern=r"^[^\x00-\x1f\x7f\[\]#]+$")]
_Key = Annotated[str, Field(min_length=1, max_length=MAX_STEP_NAME, pattern=r"^[^\x00-\x1f\x7f]+$")]


class StepRequest(RequestBody):
    """A step that the agent has executed: its result, or a failure that is final."""

    name: _Name
    key: _Key | None = Field(default=None, description="Identifies the step within its run; its name if absent.")
    result: JsonValue = Field(default=None, description="What it returned, as JSON.")
    failure: StepFailure | None = None
    attempt: int = Field(default=1, ge=1, le=1_000_000, description="The `attempt` of the agent's request.")
    turn: int = Field(default=1, ge=1, le=1_000_000, description="The `turn` of the agent's request.")
    seconds: float = Field(default=0.0, ge=0, le=86_400, allow_inf_nan=False, description="How long it took.")


class RecordedStep(Payload):
    """The step as the run keeps it. `replayed`: it was recorded before, and this is its earlier result."""

    key: str
    status: StepStatus
    result: JsonValue
    failure: StepFailure | None
    replayed: bool


@router.post("/runs/{run_id}/steps", operation_id="recordStep", summary="Record a step", responses=PROBLEMS)
async def record_step(
    run_id: RunId, body: StepRequest, reader: RunReaderDep, client: ClientDep, tenant: TenantDep
) -> RecordedStep:
    """For agents behind HTTP, which get this address as `stepsUrl`. With the answer the step is durable. A step that
    was recorded before is not changed: the answer has its earlier result, which the agent has to use.
    """
    _check(body)
    description = await reader.find(tenant, run_id)
    ledger = StepStore(client, description.id, description.run_id)
    key = body.name if body.key is None else f"{body.name}[{body.key}]"
    first: StepRecord | None = None
    try:
        records = {one.key: one for one in await ledger.load()}
        if key not in records:
            if len(records) >= MAX_STEPS:
                raise invalid_field("/name", f"a run may have {MAX_STEPS:,} steps")
            if description.close_time is not None:
                raise RunEndedError
            await ledger.record(_to_record(body, key))
            # Of requests that came at once the first one counts for all.
            first = {one.key: one for one in await ledger.load()}.get(key)
    except RunEndedError:
        raise ProblemError(
            ProblemType.RUN_ENDED, "The run has ended, so it takes no more steps.", run_id=run_id
        ) from None
    except StepsUnreadableError:
        raise ProblemError(
            ProblemType.TEMPORAL_UNAVAILABLE, "The run's steps cannot be read now.", retry_after=2, run_id=run_id
        ) from None
    own = _to_record(body, key)
    kept = records.get(key) or first or own
    is_replayed = key in records or (kept.result, kept.failure) != (own.result, own.failure)
    return RecordedStep(key=key, status=kept.status, result=kept.result, failure=kept.failure, replayed=is_replayed)


def _check(body: StepRequest) -> None:
    """Raises 422 for what a step of an agent in a worker could not have either."""
    if body.failure is not None and body.result is not None:
        raise invalid_field("/failure", "must be absent beside a result")
    if len(to_json(body.result)) > MAX_STEP_BYTES:
        raise invalid_field("/result", f"has more than {MAX_STEP_BYTES:,} bytes. Store it, and record where.")
    if body.failure is not None and (len(body.failure.type) > 200 or len(body.failure.message) > 2_000):
        raise invalid_field("/failure", "its type may have 200 characters, its message 2,000")


def _to_record(body: StepRequest, key: str) -> StepRecord:
    return StepRecord(
        key=key,
        name=body.name,
        attempt=body.attempt,
        turn=body.turn,
        started_at=datetime.now(UTC) - timedelta(seconds=body.seconds),
        seconds=body.seconds,
        result=body.result,
        failure=body.failure,
    )
