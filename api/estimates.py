"""How long a job will take, in the words of the article."""

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.service import RPCError

from api.durations import Work
from api.gateway import Gateway
from contracts.runs import batch_queue

# Upper bounds in seconds, and what is said below them.
_WORDS = (
    (60, "less than a minute"),
    (120, "1-2 minutes"),
    (300, "2-5 minutes"),
    (600, "5-10 minutes"),
    (1_200, "10-20 minutes"),
    (1_800, "20-30 minutes"),
    (3_600, "30-60 minutes"),
    (7_200, "1-2 hours"),
    (21_600, "2-6 hours"),
    (86_400, "6-24 hours"),
)


def in_words(seconds: float | None) -> str:
    """`"5-10 minutes"`; `"unknown"` where nothing was measured and nothing configured."""
    if seconds is None:
        return "unknown"
    return next((words for bound, words in _WORDS if seconds < bound), "more than a day")


async def job_seconds(gateway: Gateway, work: Work, items: int, concurrency: int) -> float | None:
    """Seconds until a job of so many items is expected to end, the backlog before it included."""
    typical = await gateway.durations.per_item(work)
    if typical is None:
        configured = gateway.durations.estimates.get(work.agent)
        if configured is None:
            return None
        typical = configured / min(concurrency, items)
    return typical * items + await _backlog_seconds(gateway)


async def _backlog_seconds(gateway: Gateway) -> float:
    """How long the oldest chunk or call has been waiting for a worker: so long a new one will at least wait."""
    try:
        queue = await gateway.client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=gateway.client.namespace,
                task_queue=TaskQueue(name=batch_queue(gateway.task_queue)),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
                report_stats=True,
            )
        )
    except RPCError:
        return 0.0  # an estimate is not worth a failed answer
    return float(queue.stats.approximate_backlog_age.ToTimedelta().total_seconds())
