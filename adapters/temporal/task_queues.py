"""What Temporal knows of a task queue: who polls it, which build gets new runs, and how much waits in it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import TaskQueueType, WorkerVersioningMode
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion

from sevenfold.adapters.temporal.deployments import find_targets
from sevenfold.contracts.agents.circuits import control_task_queue
from sevenfold.contracts.events.event_driven import broker_task_queue, event_task_queue
from sevenfold.contracts.runs.run import batch_task_queue, stream_task_queue
from sevenfold.contracts.webhooks.delivery import webhook_task_queue

WORKFLOW_TASKS = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
ACTIVITY_TASKS = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY

_TIMEOUT = timedelta(seconds=5)


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
    """Describes one kind of tasks of a queue; with `report_stats` its backlog too, of all builds. Raises RPCError."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=name),
        task_queue_type=kind,
        report_stats=report_stats,
    )
    return await client.workflow_service.describe_task_queue(request, retry=retry, timeout=timeout)


# A build, or workers without a build id.
BuildOrNone = WorkerDeploymentVersion | None


@dataclass(frozen=True)
class BuildRouting:
    """Where a queue's new runs go. None stands for workers without a build id. `ramping` counts only with a share in
    percent.
    """

    current: BuildOrNone = None
    ramping: BuildOrNone = None
    ramp_percent: float = 0

    @property
    def targets(self) -> frozenset[BuildOrNone]:
        """The builds that get new runs."""
        return find_targets(self.current, self.ramping, self.ramp_percent)


def routing_of(described: DescribeTaskQueueResponse) -> BuildRouting:
    """Returns where a queue's new runs go."""
    info = described.versioning_info
    return BuildRouting(
        to_version(info.current_deployment_version),
        to_version(info.ramping_deployment_version),
        info.ramping_version_percentage,
    )


async def read_routing(client: Client, name: str) -> BuildRouting:
    """Returns where a queue's new runs go now. Raises RPCError."""
    return routing_of(await describe_task_queue(client, name, WORKFLOW_TASKS, timeout=_TIMEOUT, retry=False))


def build_of(poller: PollerInfo) -> BuildOrNone:
    """Returns the build of a poller's worker; None if it has no build id."""
    options = poller.deployment_options
    is_versioned = options.worker_versioning_mode == WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED
    return to_version(options) if is_versioned else None


def to_version(found: Any) -> BuildOrNone:
    """Converts a message that has a deployment name and a build id; None if either is missing."""
    if not found.deployment_name or not found.build_id:
        return None
    return WorkerDeploymentVersion(found.deployment_name, found.build_id)
