"""Is the process alive; can it serve."""

import asyncio
from enum import StrEnum

from fastapi import APIRouter, Response
from pydantic import Field
from temporalio.service import RPCError

from sevenfold.api.dependencies import GatewayDep
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts.payload import Payload

router = APIRouter(prefix="/health", tags=["health"], route_class=StrictJsonRoute)

_CHECK_SECONDS = 2.0


class Health(StrEnum):
    """The two answers."""

    OK = "ok"
    FAILING = "failing"


class Liveness(Payload):
    """The process answers."""

    status: Health = Health.OK


class Readiness(Payload):
    """Whether runs that are started here will be worked on, and what is missing if not."""

    status: Health
    temporal: str = Field(examples=["ok"])
    worker: str = Field(examples=["ok"])
    storage: str | None = Field(None, description="Why the data directory takes no writes; only then.")


@router.get("/live", operation_id="getLiveness", summary="Is the process alive?")
async def live() -> Liveness:
    """Answers as long as the process does."""
    return Liveness()


@router.get(
    "/ready",
    operation_id="getReadiness",
    summary="Can it serve?",
    response_model_exclude_none=True,
    responses={503: {"model": Readiness, "description": "Not now; the fields say what is missing."}},
)
async def ready(gateway: GatewayDep, response: Response) -> Readiness:
    """Temporal can be reached, a worker polls the task queue, and there is room to write."""
    temporal = worker = Health.OK.value
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            if not await gateway.pollers.check(gateway.task_queue):
                worker = f"no worker polls the task queue {gateway.task_queue}; start one with `sevenfold worker`"
    except (RPCError, TimeoutError):
        temporal, worker = "Temporal does not answer", "unknown"
    storage = gateway.disk.reason if gateway.disk.is_low else None
    healthy = temporal == worker == Health.OK and storage is None
    if not healthy:
        response.status_code = 503
    return Readiness(
        status=Health.OK if healthy else Health.FAILING, temporal=temporal, worker=worker, storage=storage
    )
