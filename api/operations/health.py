"""Probes: whether the process is alive, and whether it can serve."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from sevenfold.adapters.health import HealthChecks
from sevenfold.api.dependencies import component
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts.operations.health import Health, Liveness, Readiness

router = APIRouter(prefix="/health", tags=["health"], route_class=StrictJsonRoute)

HealthChecksDep = Annotated[HealthChecks, Depends(component("health_checks"))]


@router.get("/live", operation_id="getLiveness", summary="Is the process alive?")
async def live() -> Liveness:
    """Answers 200 as long as the process runs."""
    return Liveness()


@router.get(
    "/ready",
    operation_id="getReadiness",
    summary="Can it serve?",
    response_model_exclude_none=True,
    responses={
        503: {"model": Readiness, "description": "The gateway cannot serve now; the fields name what is missing."}
    },
)
async def ready(checks: HealthChecksDep, response: Response) -> Readiness:
    """Checks Temporal, the workers, the disk, the store of large payloads, the log of streams and the brokers.
    `degraded` is a 200: without a worker, an API alone still accepts jobs.
    """
    found = await checks.check()
    if found.status is Health.FAILING:
        response.status_code = 503
    return found
