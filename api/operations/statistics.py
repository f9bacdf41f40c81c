"""What goes on: `GET /stats`, by pattern, agent and task; queues and webhooks beside it."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecution

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.durations import TaskKind, completed_seconds, quantile
from sevenfold.adapters.temporal.run_outcomes import to_run_status
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.http.time_params import to_query_time
from sevenfold.api.runs.views import AGENT, PATTERN_OF_TYPE, TASK
from sevenfold.contracts.events import broker_task_queue, event_task_queue
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs import WORKFLOW_TYPES, Pattern, RunStatus, batch_task_queue, stream_task_queue
from sevenfold.contracts.webhooks import webhook_task_queue

router = APIRouter(prefix=API_PREFIX, tags=["runs"], route_class=StrictJsonRoute)

# So many of the latest runs are looked at: the rest is counted, not timed.
_MAX_RUNS = 2_000
_TRAFFIC_MINUTES = 10
_TIMEOUT = timedelta(seconds=10)

_KINDS = (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)


class TaskStats(Payload):
    """Runs of one pattern, agent and task. Durations are of completed runs, in seconds."""

    pattern: Pattern
    agent: str
    task: str
    count: int
    open: int
    completed: int
    failed: int
    cancelled: int
    error_rate: float = Field(description="Failed runs among those that completed or failed.")
    p50: float | None
    p95: float | None


class QueueStats(Payload):
    """A task queue: how many tasks wait for a worker, and for how many seconds the oldest has."""

    name: str
    depth: int
    age: float


class WebhookStats(Payload):
    """Deliveries that ended; `successRate` is null before there is one."""

    delivered: int
    exhausted: int
    in_progress: int
    success_rate: float | None


class Stats(Payload):
    """Of what began `since`. `sampled`: there were more runs than are looked at; these are the latest."""

    since: datetime
    sampled: bool
    runs: list[TaskStats]
    queues: list[QueueStats]
    webhooks: WebhookStats


@router.get("/stats", operation_id="getStatistics", summary="See how things are going", responses=PROBLEMS)
async def stats(
    gateway: GatewayDep,
    tenant: TenantDep,
    hours: Annotated[int, Query(ge=1, le=720, description="How far back to look.")] = 24,
) -> Stats:
    """What Temporal's visibility and task queues know, up to a second late."""
    return await gateway.statistics.get(("stats", tenant, hours), lambda: _stats(gateway, tenant, hours))


async def _stats(gateway: Gateway, tenant: str, hours: int) -> Stats:
    since = datetime.now(UTC) - timedelta(hours=hours)
    types = ", ".join(f"'{workflow_type}'" for workflow_type in WORKFLOW_TYPES.values())
    query = f"WorkflowType IN ({types}) AND Tenant = '{tenant}' AND StartTime >= '{to_query_time(since)}'"
    listed = [one async for one in gateway.client.list_workflows(query, page_size=500, limit=_MAX_RUNS)]
    return Stats(
        since=since,
        sampled=len(listed) == _MAX_RUNS,
        runs=_group_runs(listed),
        queues=await _load_queues(gateway),
        webhooks=await _load_webhooks(gateway.client, tenant, since),
    )


def _group_runs(executions: list[WorkflowExecution]) -> list[TaskStats]:
    groups: dict[tuple[Pattern, str, str], list[WorkflowExecution]] = defaultdict(list)
    for one in executions:
        attributes = one.typed_search_attributes
        key = (PATTERN_OF_TYPE[one.workflow_type], attributes.get(AGENT, ""), attributes.get(TASK, ""))
        groups[key].append(one)
    return [_summarize_group(*key, members) for key, members in sorted(groups.items())]


def _summarize_group(pattern: Pattern, agent: str, task: str, members: list[WorkflowExecution]) -> TaskStats:
    counts = Counter(to_run_status(one) for one in members)
    completed, failed = counts[RunStatus.COMPLETED], counts[RunStatus.FAILED]
    seconds = completed_seconds(members)
    return TaskStats(
        pattern=pattern,
        agent=agent,
        task=task,
        count=len(members),
        open=counts[RunStatus.PROCESSING] + counts[RunStatus.QUEUED],
        completed=completed,
        failed=failed,
        cancelled=counts[RunStatus.CANCELLED],
        error_rate=failed / (completed + failed) if completed + failed else 0.0,
        p50=quantile(seconds, 0.5),
        p95=quantile(seconds, 0.95),
    )


async def _load_queues(gateway: Gateway) -> list[QueueStats]:
    name = gateway.task_queue
    names = (
        name,
        stream_task_queue(name),
        batch_task_queue(name),
        event_task_queue(name),
        webhook_task_queue(name),
        broker_task_queue(name),
    )

    async def described(queue: str) -> QueueStats:
        depth, age = 0, 0.0
        for kind in _KINDS:
            request = DescribeTaskQueueRequest(
                namespace=gateway.client.namespace,
                task_queue=TaskQueue(name=queue),
                task_queue_type=kind,
                report_stats=True,
            )
            found = (await gateway.client.workflow_service.describe_task_queue(request, timeout=_TIMEOUT)).stats
            depth += found.approximate_backlog_count
            age = max(age, found.approximate_backlog_age.ToTimedelta().total_seconds())
        return QueueStats(name=queue, depth=depth, age=age)

    return await gather_bounded(described, names)


async def _load_webhooks(client: Client, tenant: str, since: datetime) -> WebhookStats:
    async def count(condition: str) -> int:
        query = f"WorkflowType = 'WebhookDelivery' AND Tenant = '{tenant}' AND StartTime >= '{to_query_time(since)}'"
        return (await client.count_workflows(f"{query} AND {condition}")).count

    delivered, exhausted, in_progress = await gather_bounded(
        count, ("ExecutionStatus = 'Completed'", "ExecutionStatus = 'Failed'", "ExecutionStatus = 'Running'")
    )
    ended = delivered + exhausted
    return WebhookStats(
        delivered=delivered,
        exhausted=exhausted,
        in_progress=in_progress,
        success_rate=delivered / ended if ended else None,
    )


async def requests_per_minute(client: Client, kind: TaskKind) -> float:
    """How often an agent has been asked for a task lately."""
    since = datetime.now(UTC) - timedelta(minutes=_TRAFFIC_MINUTES)
    query = (
        f"Tenant = '{kind.tenant}' AND Agent = '{kind.agent}' AND Task = '{kind.task}' "
        f"AND StartTime >= '{to_query_time(since)}'"
    )
    return (await client.count_workflows(query)).count / _TRAFFIC_MINUTES
