"""Reads statistics of runs, task queues and webhook deliveries from Temporal."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import Field
from temporalio.client import Client, WorkflowExecution

from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.temporal.durations import TaskKind, completed_seconds, quantile
from sevenfold.adapters.temporal.run_outcomes import to_run_status
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.adapters.temporal.task_queues import (
    ACTIVITY_TASKS,
    WORKFLOW_TASKS,
    describe_task_queue,
    list_task_queues,
)
from sevenfold.api.http.listing import tenant_condition
from sevenfold.api.http.time_params import to_query_time
from sevenfold.api.runs.views import AGENT, PATTERN_OF_TYPE, TASK
from sevenfold.contracts import workflow_types
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.run import WORKFLOW_TYPES, Pattern, RunStatus

# Statistics cover this many of the latest runs at most.
_MAX_RUNS = 2_000
_TRAFFIC_MINUTES = 10
_TIMEOUT = timedelta(seconds=10)


class TaskStats(Payload):
    """Runs of one pattern, agent and task. Durations are those of completed runs, in seconds."""

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
    """A task queue: the number of tasks that wait for a worker, and the age of the oldest in seconds."""

    name: str
    depth: int
    age: float


class WebhookStats(Payload):
    """Webhook deliveries. `successRate` is the share of ended deliveries that succeeded; null before the first."""

    delivered: int
    exhausted: int
    in_progress: int
    success_rate: float | None


class Stats(Payload):
    """Statistics of what started after `since`. `sampled`: there are more than 2,000 runs; these are the latest.
    `queues` are those of all tenants, so only administrators get them.
    """

    since: datetime
    sampled: bool
    runs: list[TaskStats]
    queues: list[QueueStats]
    webhooks: WebhookStats


@dataclass(frozen=True)
class StatisticsReader:
    """Reads statistics. Concurrent requests share one search of visibility."""

    client: Client
    task_queue: str
    shared: SharedAnswers

    async def load(self, tenant: str | None, hours: int, *, with_queues: bool) -> Stats:
        """Returns the statistics of the last `hours`, at most one second old. None: of all tenants."""
        key = ("stats", tenant, hours, with_queues)
        return await self.shared.get(key, lambda: self._load(tenant, hours, with_queues=with_queues))

    async def _load(self, tenant: str | None, hours: int, *, with_queues: bool) -> Stats:
        since = datetime.now(UTC) - timedelta(hours=hours)
        types = ", ".join(f"'{workflow_type}'" for workflow_type in WORKFLOW_TYPES.values())
        query = _query(f"WorkflowType IN ({types})", tenant, since)
        listed = [one async for one in self.client.list_workflows(query, page_size=500, limit=_MAX_RUNS)]
        return Stats(
            since=since,
            sampled=len(listed) == _MAX_RUNS,
            runs=_group_runs(listed),
            queues=await self._load_queues() if with_queues else [],
            webhooks=await self._load_webhooks(tenant, since),
        )

    async def _load_queues(self) -> list[QueueStats]:
        return await gather_bounded(self._load_queue, list_task_queues(self.task_queue))

    async def _load_queue(self, name: str) -> QueueStats:
        depth, age = 0, 0.0
        for kind in (WORKFLOW_TASKS, ACTIVITY_TASKS):
            found = (await describe_task_queue(self.client, name, kind, timeout=_TIMEOUT, report_stats=True)).stats
            depth += found.approximate_backlog_count
            age = max(age, found.approximate_backlog_age.ToTimedelta().total_seconds())
        return QueueStats(name=name, depth=depth, age=age)

    async def _load_webhooks(self, tenant: str | None, since: datetime) -> WebhookStats:
        query = _query(f"WorkflowType = '{workflow_types.WEBHOOK_DELIVERY}'", tenant, since)

        async def count(status: str) -> int:
            return (await self.client.count_workflows(f"{query} AND ExecutionStatus = '{status}'")).count

        delivered, exhausted, in_progress = await gather_bounded(count, ("Completed", "Failed", "Running"))
        ended = delivered + exhausted
        return WebhookStats(
            delivered=delivered,
            exhausted=exhausted,
            in_progress=in_progress,
            success_rate=delivered / ended if ended else None,
        )


def _group_runs(executions: list[WorkflowExecution]) -> list[TaskStats]:
    groups: dict[tuple[Pattern, str, str], list[WorkflowExecution]] = defaultdict(list)
    for one in executions:
        attributes = one.typed_search_attributes
        key = (PATTERN_OF_TYPE[one.workflow_type], attributes.get(AGENT, ""), attributes.get(TASK, ""))
        groups[key].append(one)
    return [_summarize_group(*key, members) for key, members in sorted(groups.items())]


def _query(types: str, tenant: str | None, since: datetime) -> str:
    return " AND ".join([types, *tenant_condition(tenant), f"StartTime >= '{to_query_time(since)}'"])


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


async def requests_per_minute(client: Client, kind: TaskKind) -> float:
    """Returns the rate of runs of an agent and task over the last 10 minutes."""
    since = datetime.now(UTC) - timedelta(minutes=_TRAFFIC_MINUTES)
    query = (
        f"Tenant = '{kind.tenant}' AND Agent = '{kind.agent}' AND Task = '{kind.task}' "
        f"AND StartTime >= '{to_query_time(since)}'"
    )
    return (await client.count_workflows(query)).count / _TRAFFIC_MINUTES
