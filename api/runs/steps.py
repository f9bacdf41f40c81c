"""`POST /runs/{id}/steps`: an agent behind HTTP records a step of its run."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, JsonValue

from sevenfold.adapters.temporal.step_ledger import RunEndedError, StepLedger, StepsUnreadableError
from sevenfold.api.dependencies import API_PREFIX, ClientDep, TenantDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.dependencies import RunReaderDep
from sevenfold.api.runs.router import RunId
from sevenfold.contracts.payload import Payload, RequestBody
from sevenfold.contracts.steps import MAX_STEP_NAME, MAX_STEPS, StepFailure, StepRecord, StepStatus

router = APIRouter(prefix=API_PREFIX, tags=["runs"], route_class=StrictJsonRoute)

_Name = Annotated[str, Field(min_length=1, max_length=MAX_STEP_NAME)]


class StepRequest(RequestBody):
    """A step that the agent has executed: its result, or a failure that is final."""

    name: _Name
    key: _Name | None = Field(default=None, description="Identifies the step within its run; its name if absent.")
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
    description = await reader.find(tenant, run_id)
    ledger = StepLedger(client, description.id, description.run_id)
    key = body.name if body.key is None else f"{body.name}[{body.key}]"
    try:
        records = {one.key: one for one in await ledger.load()}
        if key not in records:
            if len(records) >= MAX_STEPS:
                raise invalid_field("/name", f"a run may have {MAX_STEPS:,} steps")
            if description.close_time is not None:
                raise RunEndedError
            await ledger.record(_to_record(body, key))
    except RunEndedError:
        raise ProblemError(
            ProblemType.RUN_ENDED, "The run has ended, so it takes no more steps.", run_id=run_id
        ) from None
    except StepsUnreadableError:
        raise ProblemError(
            ProblemType.TEMPORAL_UNAVAILABLE, "The run's steps cannot be read now.", retry_after=2, run_id=run_id
        ) from None
    kept = records.get(key) or _to_record(body, key)
    return RecordedStep(
        key=key, status=kept.status, result=kept.result, failure=kept.failure, replayed=key in records
    )


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
