"""Builds and runs the Temporal workers of a process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import VersioningBehavior
from temporalio.worker import Worker, WorkerDeploymentConfig

from sevenfold import __version__
from sevenfold.contracts.agents.circuits import control_task_queue
from sevenfold.contracts.webhooks.delivery import webhook_task_queue
from sevenfold.runtime.config.settings import Settings

# Of workers without SEVENFOLD_BUILD_ID. The SDK's default is a hash of all loaded code, which takes a second of each
# start.
UNVERSIONED_BUILD_ID = f"sevenfold-{__version__}"


# Deliveries wait for hours: replaying the few steps of one costs less than caching all of them.
_CACHED_DELIVERIES = 100
_MAX_CONCURRENT_DELIVERIES = 100
_CACHED_CONTROLS = 100
_MAX_CONCURRENT_ERASURES = 4

Activities = list[Callable[..., Any]]


def _build_options(settings: Settings, behavior: VersioningBehavior = VersioningBehavior.PINNED) -> dict[str, Any]:
    """Returns the options of a worker for its build: `PINNED` for short runs, which end on their build, or
    `AUTO_UPGRADE` for entities. Workflow classes cannot have them: the server refuses that from workers without a
    build id.
    """
    if settings.build is None:
        return {"build_id": UNVERSIONED_BUILD_ID}
    return {
        "deployment_config": WorkerDeploymentConfig(
            version=settings.build, use_worker_versioning=True, default_versioning_behavior=behavior
        )
    }


def build_run_worker(
    client: Client, settings: Settings, task_queue: str, workflows: list[type], activities: Activities
) -> Worker:
    """Builds a worker that calls agents."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=workflows,
        activities=activities,
        max_cached_workflows=settings.max_cached_workflows,
        # An inline call holds a workflow task slot, so there are as many slots as calls. With a single slot the polls
        # for new runs and for cached runs would alternate.
        max_concurrent_workflow_tasks=max(2, settings.max_concurrent_calls),
        max_concurrent_local_activities=settings.max_concurrent_calls,
        max_concurrent_activities=settings.max_concurrent_calls,
        # A cancellation that was not pushed arrives with the next heartbeat.
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        # How long a dead worker's cached runs wait before another worker may take them.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=5),
        graceful_shutdown_timeout=settings.grace_period,
        **_build_options(settings),
    )


def build_delivery_worker(
    client: Client, settings: Settings, workflows: list[type], activities: Activities
) -> Worker:
    """Builds the worker of webhook deliveries."""
    return Worker(
        client,
        task_queue=webhook_task_queue(settings.task_queue),
        workflows=workflows,
        activities=activities,
        max_cached_workflows=min(_CACHED_DELIVERIES, settings.max_cached_workflows),
        max_concurrent_activities=_MAX_CONCURRENT_DELIVERIES,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=5),
        graceful_shutdown_timeout=settings.grace_period,
        **_build_options(settings, VersioningBehavior.AUTO_UPGRADE),
    )


def build_control_worker(client: Client, settings: Settings, workflows: list[type], activities: Activities) -> Worker:
    """Builds the worker of circuit breakers, limits, tenants, subscriptions and erasures, separate from the runs that
    wait for them, or that are erased.
    """
    return Worker(
        client,
        task_queue=control_task_queue(settings.task_queue),
        workflows=workflows,
        activities=activities,
        max_concurrent_activities=_MAX_CONCURRENT_ERASURES,
        max_cached_workflows=min(_CACHED_CONTROLS, settings.max_cached_workflows),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        graceful_shutdown_timeout=settings.grace_period,
        **_build_options(settings, VersioningBehavior.AUTO_UPGRADE),
    )


@asynccontextmanager
async def running_workers(*workers: Worker) -> AsyncIterator[None]:
    """The workers poll while the block runs. They shut down together: each may wait for a Temporal that does not
    answer, and one after another they would wait longer than a supervisor permits.
    """
    async with AsyncExitStack() as stack:
        for one in workers:
            await stack.enter_async_context(one)
        try:
            yield
        finally:
            await asyncio.gather(*(one.shutdown() for one in workers), return_exceptions=True)
