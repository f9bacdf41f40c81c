"""Detects whether a worker polls a task queue."""

import time
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.taskqueue.v1 import PollerInfo
from temporalio.api.workflowservice.v1 import ListWorkersRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.adapters.temporal.task_queues import WORKFLOW_TASKS, describe_task_queue

# A worker renews its poll at least once a minute; an older poll belongs to a dead worker.
_MAX_POLL_AGE_SECONDS = 70.0

# A worker's heartbeat comes every second and detects a dead worker sooner; the rest allows for clock differences.
_MAX_HEARTBEAT_AGE_SECONDS = 15.0

_TIMEOUT = timedelta(seconds=5)

# Cache time of a result, in seconds.
_TTL_SECONDS = 1.0


class WorkerPollers:
    """Asks Temporal at most once a second per queue."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cache = SharedAnswers(_TTL_SECONDS)

    async def is_polled(self, queue: str) -> bool:
        """Whether a worker polls the queue, at most a second old. Raises RPCError."""
        return await self._cache.get(queue, lambda: self.check(queue))

    async def check(self, queue: str) -> bool:
        """Whether a worker polls the queue now. Raises RPCError."""
        described = await describe_task_queue(self._client, queue, WORKFLOW_TASKS, timeout=_TIMEOUT, retry=False)
        if not any(map(is_polling, described.pollers)):
            return False
        heartbeats = await self._worker_heartbeats(queue)
        return not heartbeats or any(_seen_within(_MAX_HEARTBEAT_AGE_SECONDS, beat) for beat in heartbeats)

    async def _worker_heartbeats(self, queue: str) -> list[Timestamp]:
        """Returns the times of the workers' last heartbeats; empty if the server does not record them."""
        request = ListWorkersRequest(namespace=self._client.namespace, query=f"TaskQueue = '{queue}'", page_size=100)
        try:
            listed = await self._client.workflow_service.list_workers(request, retry=False, timeout=_TIMEOUT)
        except RPCError as error:
            if error.status in (RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.PERMISSION_DENIED):
                return []
            raise
        return [worker.worker_heartbeat.heartbeat_time for worker in listed.workers_info]


def is_polling(poller: PollerInfo) -> bool:
    """Whether the poller's worker is alive, as far as its polls show."""
    return _seen_within(_MAX_POLL_AGE_SECONDS, poller.last_access_time)


def _seen_within(seconds: float, moment: Timestamp) -> bool:
    return moment.seconds >= time.time() - seconds
