"""Probes: whether the process is alive, and whether it can serve."""

import asyncio
from enum import StrEnum

from fastapi import APIRouter, Response
from pydantic import Field
from temporalio.service import RPCError

from sevenfold.api.dependencies import TaskQueueDep
from sevenfold.api.http.disk_guard import DiskSpaceDep
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.operations.dependencies import WorkerPollersDep
from sevenfold.contracts.payload import Payload

router = APIRouter(prefix="/health", tags=["health"], route_class=StrictJsonRoute)

_CHECK_SECONDS = 2.0


class Health(StrEnum):
    """The result of a probe."""

    OK = "ok"
    FAILING = "failing"


class Liveness(Payload):
    """The process is alive."""

    status: Health = Health.OK


class Readiness(Payload):
    """Whether a worker will serve runs that are started here, and what is missing if not."""

    status: Health
    temporal: str = Field(examples=["ok"])
    worker: str = Field(examples=["ok"])
    storage: str | None = Field(None, description="Why the data directory takes no writes; absent if it does.")


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
async def ready(
    pollers: WorkerPollersDep, task_queue: TaskQueueDep, disk: DiskSpaceDep, response: Response
) -> Readiness:
    """Checks that Temporal is reachable, that a worker polls the task queue, and that the disk has room."""
    temporal = worker = Health.OK.value
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            if not await pollers.check(task_queue):
                worker = f"no worker polls the task queue {task_queue}; start one with `sevenfold worker`"
    except (RPCError, TimeoutError):
        temporal, worker = "Temporal does not answer", "unknown"
    storage = disk.reason if disk.is_low else None
    healthy = temporal == worker == Health.OK and storage is None
    if not healthy:
        response.status_code = 503
    return Readiness(
        status=Health.OK if healthy else Health.FAILING, temporal=temporal, worker=worker, storage=storage
    )
