"""Detects whether workers poll a task queue, and whether those that get its new runs do."""

import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import WorkerStatus
from temporalio.api.taskqueue.v1 import PollerInfo
from temporalio.api.worker.v1 import WorkerHeartbeat
from temporalio.api.workflowservice.v1 import DescribeTaskQueueResponse, ListWorkersRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.adapters.temporal.task_queues import (
    WORKFLOW_TASKS,
    BuildOrNone,
    BuildRouting,
    build_of,
    describe_task_queue,
    routing_of,
    to_version,
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

    builds: frozenset[BuildOrNone]
    routing: BuildRouting

    @property
    def unserved(self) -> frozenset[BuildOrNone]:
        """The builds that get new runs and have no worker."""
        return self.routing.targets - self.builds

    @property
    def unserved_text(self) -> str:
        """Names them: `workers of build b2`."""
        if not self.builds and self.unserved == {None}:
            return "workers"
        names = sorted(f"of build {build.build_id}" if build else "without a build id" for build in self.unserved)
        return f"workers {' and '.join(names)}"


class WorkerPollers:
    """Asks Temporal at most once a second per queue."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cache = SharedAnswers(_TTL_SECONDS)

    async def find(self, queue: str) -> QueuePollers:
        """Returns who polls the queue, at most a second old. Raises RPCError."""
        return await self._cache.get(queue, lambda: self.check(queue))

    async def check(self, queue: str) -> QueuePollers:
        """Returns who polls the queue now. Raises RPCError."""
        described = await describe_task_queue(self._client, queue, WORKFLOW_TASKS, timeout=_TIMEOUT, retry=False)
        alive = await _find_alive(self._client, queue, described)
        return QueuePollers(frozenset(map(build_of, alive)), routing_of(described))


async def count_workers(client: Client, queue: str) -> Counter[BuildOrNone]:
    """Counts the workers that poll a queue by build; None counts those without a build id. Raises RPCError."""
    described = await describe_task_queue(client, queue, WORKFLOW_TASKS, timeout=_TIMEOUT)
    return Counter(map(build_of, await _find_alive(client, queue, described)))


def is_polling(poller: PollerInfo) -> bool:
    """Whether the poller's worker is alive, as far as its polls show."""
    return poller.last_access_time.seconds >= time.time() - _MAX_POLL_AGE_SECONDS


async def _find_alive(client: Client, queue: str, described: DescribeTaskQueueResponse) -> list[PollerInfo]:
    """Returns the pollers of workers that are alive, one for each worker. A worker that stops, or has sent heartbeats
    and sends none any more, is dead before its poll is old. Processes on other machines may have the same identity.
    """
    polling = {(one.identity, build_of(one)): one for one in described.pollers if is_polling(one)}
    if not polling:
        return []
    latest: dict[tuple[str, BuildOrNone], WorkerHeartbeat] = {}
    for beat in await _read_heartbeats(client, queue):
        worker = (beat.worker_identity, to_version(beat.deployment_version))
        if worker not in latest or latest[worker].heartbeat_time.seconds <= beat.heartbeat_time.seconds:
            latest[worker] = beat
    return [poller for worker, poller in polling.items() if worker not in latest or _is_beating(latest[worker])]


def _is_beating(heartbeat: WorkerHeartbeat) -> bool:
    is_stopping = heartbeat.status in (
        WorkerStatus.WORKER_STATUS_SHUTTING_DOWN,
        WorkerStatus.WORKER_STATUS_SHUTDOWN,
    )
    return not is_stopping and heartbeat.heartbeat_time.seconds >= time.time() - _MAX_HEARTBEAT_AGE_SECONDS


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
