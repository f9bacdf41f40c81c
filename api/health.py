"""Is the process alive; can it serve."""

import asyncio
import time
from enum import StrEnum

from fastapi import APIRouter, Response
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import Field
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, ListWorkersRequest
from temporalio.service import RPCError, RPCStatusCode

from api.gateway import Gateway, GatewayDep
from api.strict_json import StrictJsonRoute
from contracts.payload import Payload

router = APIRouter(prefix="/health", tags=["health"], route_class=StrictJsonRoute)

_CHECK_SECONDS = 2.0

# A worker's poll is renewed once a minute at the latest; one that is older was made by a worker that is gone.
_FRESH_POLL_SECONDS = 70.0

# Its heartbeat comes every second and finds a dead one sooner; the rest is room for clocks that differ.
_FRESH_HEARTBEAT_SECONDS = 15.0


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


@router.get("/live", summary="Is the process alive?")
async def live() -> Liveness:
    """Answers as long as the process does."""
    return Liveness()


@router.get(
    "/ready",
    summary="Can it serve?",
    responses={503: {"model": Readiness, "description": "Not now; the fields say what is missing."}},
)
async def ready(gateway: GatewayDep, response: Response) -> Readiness:
    """Temporal can be reached, and a worker polls the task queue."""
    temporal = worker = Health.OK.value
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            if not await _a_worker_polls(gateway):
                worker = f"no worker polls the task queue {gateway.task_queue}; start one with `sevenfold worker`"
    except (RPCError, TimeoutError):
        temporal, worker = "Temporal does not answer", "unknown"
    healthy = temporal == worker == Health.OK
    if not healthy:
        response.status_code = 503
    return Readiness(status=Health.OK if healthy else Health.FAILING, temporal=temporal, worker=worker)


async def _a_worker_polls(gateway: Gateway) -> bool:
    queue = await gateway.client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=gateway.client.namespace,
            task_queue=TaskQueue(name=gateway.task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        ),
        retry=False,
    )
    if not any(_seen_within(_FRESH_POLL_SECONDS, poller.last_access_time) for poller in queue.pollers):
        return False
    heartbeats = await _worker_heartbeats(gateway)
    return not heartbeats or any(_seen_within(_FRESH_HEARTBEAT_SECONDS, beat) for beat in heartbeats)


async def _worker_heartbeats(gateway: Gateway) -> list[Timestamp]:
    """When the queue's workers last showed themselves; nothing from a server that does not keep it, or not yet."""
    try:
        listed = await gateway.client.workflow_service.list_workers(
            ListWorkersRequest(
                namespace=gateway.client.namespace, query=f"TaskQueue = '{gateway.task_queue}'", page_size=100
            ),
            retry=False,
        )
    except RPCError as error:
        if error.status in (RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.PERMISSION_DENIED):
            return []
        raise
    return [worker.worker_heartbeat.heartbeat_time for worker in listed.workers_info]


def _seen_within(seconds: float, moment: Timestamp) -> bool:
    return moment.seconds >= time.time() - seconds
