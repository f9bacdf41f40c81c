"""Detects whether workers poll a task queue, and whether those that get its new runs do."""

import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.taskqueue.v1 import PollerInfo
from temporalio.api.worker.v1 import WorkerHeartbeat
from temporalio.api.workflowservice.v1 import DescribeTaskQueueResponse, ListWorkersRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.adapters.temporal.task_queues import (
    WORKFLOW_TASKS,
    Routing,
    build_of,
    describe_task_queue,
    routing_of,
)

# A worker renews its poll at least once a minute; an older poll belongs to a dead worker.
_MAX_POLL_AGE_SECONDS = 70.0

# A worker's heartbeat comes every second and detects a dead worker sooner; the rest allows for clock differences.
_MAX_HEARTBEAT_AGE_SECONDS = 15.0

_TIMEOUT = timedelta(seconds=5)

# Cache time of a result, in seconds.
_TTL_SECONDS = 1.0


@dataclass(frozen=True)
class QueuePollers:
    """The builds whose workers poll a queue, None for workers without a build id, and where new runs go."""

    builds: frozenset[WorkerDeploymentVersion | None]
    routing: Routing

    @property
    def are_serving(self) -> bool:
        """Whether workers of the build poll that gets new runs."""
        return self.routing.current in self.builds


class WorkerPollers:
    """Asks Temporal at most once a second per queue."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cache = SharedAnswers(_TTL_SECONDS)

    async def is_polled(self, queue: str) -> bool:
        """Whether a worker polls the queue that gets new runs, at most a second old. Raises RPCError."""
        found = await self._cache.get(queue, lambda: self.check(queue))
        return found.are_serving

    async def check(self, queue: str) -> QueuePollers:
        """Returns who polls the queue now. Raises RPCError."""
        described = await describe_task_queue(self._client, queue, WORKFLOW_TASKS, timeout=_TIMEOUT, retry=False)
        alive = await _find_alive(self._client, queue, described)
        return QueuePollers(frozenset(map(build_of, alive)), routing_of(described))


async def count_workers(client: Client, queue: str) -> Counter[WorkerDeploymentVersion | None]:
    """Counts the workers that poll a queue by build; None counts those without a build id. Raises RPCError."""
    described = await describe_task_queue(client, queue, WORKFLOW_TASKS, timeout=_TIMEOUT)
    return Counter(map(build_of, await _find_alive(client, queue, described)))


def is_polling(poller: PollerInfo) -> bool:
    """Whether the poller's worker is alive, as far as its polls show."""
    return _seen_within(_MAX_POLL_AGE_SECONDS, poller.last_access_time)


async def _find_alive(client: Client, queue: str, described: DescribeTaskQueueResponse) -> list[PollerInfo]:
    """Returns the pollers of workers that are alive, one for each worker. A worker that has sent heartbeats and sends
    none any more is dead before its poll is old.
    """
    polling = {poller.identity: poller for poller in described.pollers if is_polling(poller)}
    if not polling:
        return []
    beats: dict[str, Timestamp] = {}
    for beat in await _read_heartbeats(client, queue):
        latest = beats.setdefault(beat.worker_identity, beat.heartbeat_time)
        beats[beat.worker_identity] = max(latest, beat.heartbeat_time, key=lambda moment: moment.seconds)
    return [
        poller
        for identity, poller in polling.items()
        if identity not in beats or _seen_within(_MAX_HEARTBEAT_AGE_SECONDS, beats[identity])
    ]


async def _read_heartbeats(client: Client, queue: str) -> list[WorkerHeartbeat]:
    """Returns the workers' last heartbeats; empty if the server does not record them."""
    request = ListWorkersRequest(namespace=client.namespace, query=f"TaskQueue = '{queue}'", page_size=100)
    try:
        listed = await client.workflow_service.list_workers(request, retry=False, timeout=_TIMEOUT)
    except RPCError as error:
        if error.status in (RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.PERMISSION_DENIED):
            return []
        raise
    return [worker.worker_heartbeat for worker in listed.workers_info]


def _seen_within(seconds: float, moment: Timestamp) -> bool:
    return moment.seconds >= time.time() - seconds
