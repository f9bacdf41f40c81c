"""Durations of an agent's task: measured from recent runs, else configured, else extrapolated from progress."""

import math
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from sevenfold.adapters.temporal.run_outcomes import to_run_status
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.adapters.temporal.task_queues import ACTIVITY_TASKS, describe_task_queue
from sevenfold.contracts.runs.hybrid import MIN_RUNS, Estimate, EstimateBasis
from sevenfold.contracts.runs.run import TOTAL_MEMO, RunStatus

_SAMPLE = 20
_TTL_SECONDS = 30.0
_MIN_RUNS = 5  # With fewer runs the measurement is refreshed more often.
_SMALL_SAMPLE_TTL_SECONDS = 2.0
_BACKLOG_TTL_SECONDS = 2.0
_BACKLOG_TIMEOUT = timedelta(seconds=2)

# Bounds the cache, because clients choose task names.
_MAX_TASK_KINDS = 1_000

# Less progress predicts little.
_MIN_TELLING_PERCENT = 5


@dataclass(frozen=True)
class TaskKind:
    """The key of a measurement."""

    tenant: str
    agent: str
    task: str


@dataclass(frozen=True)
class DurationStats:
    """Measured durations in seconds: medians per run and per item, and the p95 of `run_count` runs; None before the
    first run has completed.
    """

    run_seconds: float | None = None
    item_seconds: float | None = None
    p95_seconds: float | None = None
    run_count: int = 0


def completed_seconds(runs: Iterable[WorkflowExecution]) -> list[float]:
    """Returns the durations of the completed runs, in seconds, ascending."""
    return sorted(
        (run.close_time - run.start_time).total_seconds()
        for run in runs
        if run.close_time is not None and to_run_status(run) is RunStatus.COMPLETED
    )


def quantile(ordered: list[float], share: float) -> float | None:
    """Returns the quantile `share` (0 to 1) of ascending values; None without values."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


@dataclass
class Durations:
    """Durations of recent completed runs, from visibility, cached for 30 s. `estimates`: seconds by agent."""

    client: Client
    estimates: Mapping[str, float]
    _cache: dict[TaskKind, tuple[float, DurationStats]] = field(default_factory=dict)
    _backlogs: SharedAnswers = field(default_factory=lambda: SharedAnswers(_BACKLOG_TTL_SECONDS))

    async def get_stats(self, kind: TaskKind) -> DurationStats:
        """Returns the measured durations of a kind of task."""
        read_at, stats = self._cache.get(kind, (-math.inf, DurationStats()))
        ttl = _TTL_SECONDS if stats.run_count >= _MIN_RUNS else _SMALL_SAMPLE_TTL_SECONDS
        if time.monotonic() - read_at >= ttl:
            if len(self._cache) >= _MAX_TASK_KINDS:
                self._cache.clear()
            # Set first, so that concurrent callers do not all query visibility.
            self._cache[kind] = (time.monotonic(), stats)
            stats = await self._measure(kind)
            self._cache[kind] = (time.monotonic(), stats)
        return stats

    async def _measure(self, kind: TaskKind) -> DurationStats:
        query = (
            f"Tenant = '{kind.tenant}' AND Agent = '{kind.agent}' AND Task = '{kind.task}' "
            "AND ExecutionStatus = 'Completed'"
        )
        runs: list[tuple[float, int]] = []
        try:
            async for run in self.client.list_workflows(query, page_size=_SAMPLE, limit=_SAMPLE):
                if run.close_time:
                    seconds = (run.close_time - run.start_time).total_seconds()
                    runs.append((seconds, max(1, (await run.memo()).get(TOTAL_MEMO, 1))))
        except RPCError:
            return DurationStats()  # A missing estimate must not fail the response.
        if not runs:
            return DurationStats()
        return DurationStats(
            run_seconds=statistics.median(seconds for seconds, _ in runs),
            item_seconds=statistics.median(seconds / total for seconds, total in runs),
            p95_seconds=quantile(sorted(seconds for seconds, _ in runs), 0.95),
            run_count=len(runs),
        )

    async def estimate(self, kind: TaskKind, by_caller: float | None) -> Estimate:
        """Returns how long a run will take: the caller's estimate, else the measured one, else the configured one."""
        if by_caller is not None:
            return Estimate(basis=EstimateBasis.CALLER, seconds=by_caller)
        stats = await self.get_stats(kind)
        if stats.run_count >= MIN_RUNS:
            return Estimate(
                basis=EstimateBasis.MEASURED, p50=stats.run_seconds, p95=stats.p95_seconds, runs=stats.run_count
            )
        configured = self.estimates.get(kind.agent)
        if configured is not None:
            return Estimate(basis=EstimateBasis.CONFIGURED, seconds=configured, runs=stats.run_count)
        return Estimate(basis=EstimateBasis.UNKNOWN, runs=stats.run_count)

    async def backlog_seconds(self, task_queue: str, tenant: str) -> float:
        """Returns how long a new activity of the tenant waits in the queue at least, in seconds.

        For the only tenant with open runs it is the age of the oldest waiting activity. Several tenants take turns,
        so each waits behind its own runs: the age is that of the longest backlog, and a tenant's wait is to it as its
        open runs are to those of the others.
        """
        try:
            return await self._backlogs.get((task_queue, tenant), lambda: self._estimate_backlog(task_queue, tenant))
        except RPCError:
            return 0.0  # A missing estimate must not fail the response.

    async def _estimate_backlog(self, task_queue: str, tenant: str) -> float:
        age = await self._backlogs.get(task_queue, lambda: self._oldest_age(task_queue))
        if not age:
            return 0.0
        open_runs = f"TaskQueue = '{task_queue}' AND ExecutionStatus = 'Running'"
        own = await self._count(f"{open_runs} AND Tenant = '{tenant}'")
        others = await self._backlogs.get((task_queue, None), lambda: self._count(open_runs)) - own
        return age * min(1.0, own / max(1, others))

    async def _oldest_age(self, task_queue: str) -> float:
        queue = await describe_task_queue(
            self.client, task_queue, ACTIVITY_TASKS, timeout=_BACKLOG_TIMEOUT, report_stats=True
        )
        return queue.stats.approximate_backlog_age.ToTimedelta().total_seconds()

    async def _count(self, query: str) -> int:
        return (await self.client.count_workflows(query, rpc_timeout=_BACKLOG_TIMEOUT)).count

    async def remaining_seconds(self, kind: TaskKind, created_at: datetime, percent: float) -> float:
        """Returns the expected seconds until an open run ends, at least 0. `percent` is its reported progress."""
        elapsed = max(0.0, (datetime.now(UTC) - created_at).total_seconds())
        if percent >= _MIN_TELLING_PERCENT:
            return elapsed * (100 - percent) / percent
        typical = (await self.get_stats(kind)).run_seconds or self.estimates.get(kind.agent)
        if typical is not None and typical > elapsed:
            return typical - elapsed
        return elapsed  # The run takes longer than it should: estimate as long again.
