"""Back-pressure: a consumer takes nothing more while what its messages start waits for workers."""

import asyncio
import time
from datetime import timedelta

import structlog
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client

from sevenfold.adapters.temporal.task_queues import describe_task_queue

log = structlog.get_logger(__name__)

# How long an answer of the server counts. Its statistics are up to 5 s old themselves; within that time a consumer
# may take more than the limit allows.
_MAX_ANSWER_AGE_SECONDS = 1.0
_TIMEOUT = timedelta(seconds=5)
_KINDS = (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)


class Backlog:
    """The tasks of one task queue that wait for a worker. `max_tasks` and `max_seconds` (the age of the oldest) are
    the consumer's limits.
    """

    def __init__(self, client: Client, task_queue: str, max_tasks: int | None, max_seconds: float | None) -> None:
        self._client = client
        self._task_queue = task_queue
        self._max_tasks = max_tasks
        self._max_seconds = max_seconds
        self._read_at = float("-inf")
        self._is_full = False
        self._lock = asyncio.Lock()

    async def wait_for_room(self) -> None:
        """Returns when the queue is within both limits. Raises RPCError."""
        if self._max_tasks is None and self._max_seconds is None:
            return
        waits = False
        while await self._check():
            if not waits:
                log.info("a consumer waits: the queue of what it starts is full", task_queue=self._task_queue)
            waits = True
            await asyncio.sleep(_MAX_ANSWER_AGE_SECONDS)

    async def _check(self) -> bool:
        async with self._lock:  # One question for all messages that wait.
            if time.monotonic() - self._read_at >= _MAX_ANSWER_AGE_SECONDS:
                self._is_full = await self._read()
                self._read_at = time.monotonic()
            return self._is_full

    async def _read(self) -> bool:
        tasks, seconds = 0, 0.0
        for kind in _KINDS:
            found = await describe_task_queue(
                self._client, self._task_queue, kind, timeout=_TIMEOUT, report_stats=True
            )
            tasks += found.stats.approximate_backlog_count
            seconds = max(seconds, found.stats.approximate_backlog_age.ToTimedelta().total_seconds())
        return (self._max_tasks is not None and tasks > self._max_tasks) or (
            self._max_seconds is not None and seconds > self._max_seconds
        )
