"""What Temporal knows of a task queue: who polls it, and how much waits in it."""

from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse
from temporalio.client import Client

from sevenfold.contracts.circuits import control_task_queue
from sevenfold.contracts.events import broker_task_queue, event_task_queue
from sevenfold.contracts.runs import batch_task_queue, stream_task_queue
from sevenfold.contracts.webhooks import webhook_task_queue

WORKFLOW_TASKS = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
ACTIVITY_TASKS = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY


def list_task_queues(main: str) -> list[str]:
    """Returns the names of all task queues, by that of the main one."""
    return [
        main,
        stream_task_queue(main),
        batch_task_queue(main),
        event_task_queue(main),
        webhook_task_queue(main),
        broker_task_queue(main),
        control_task_queue(main),
    ]


async def describe_task_queue(
    client: Client,
    name: str,
    kind: TaskQueueType.ValueType,
    *,
    timeout: timedelta,
    report_stats: bool = False,
    retry: bool = True,
) -> DescribeTaskQueueResponse:
    """Describes one kind of tasks of a queue; its backlog too with `report_stats`. Raises RPCError."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=name),
        task_queue_type=kind,
        report_stats=report_stats,
    )
    return await client.workflow_service.describe_task_queue(request, retry=retry, timeout=timeout)
