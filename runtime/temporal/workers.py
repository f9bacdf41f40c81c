"""Runs the Temporal workers of a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from temporalio.common import VersioningBehavior
from temporalio.worker import Worker, WorkerDeploymentConfig

from sevenfold import __version__
from sevenfold.runtime.config.settings import Settings

# Of workers without SEVENFOLD_BUILD_ID. The SDK's default is a hash of all loaded code, which takes a second of each
# start.
UNVERSIONED_BUILD_ID = f"sevenfold-{__version__}"


def build_options(settings: Settings, behavior: VersioningBehavior = VersioningBehavior.PINNED) -> dict[str, Any]:
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


@asynccontextmanager
async def running_workers(*workers: Worker) -> AsyncIterator[None]:
    """The workers poll while the block runs. They shut down together: each may wait for a Temporal that does not
    answer, and one after another they would wait beyond a supervisor's patience.
    """
    async with AsyncExitStack() as stack:
        for one in workers:
            await stack.enter_async_context(one)
        try:
            yield
        finally:
            await asyncio.gather(*(one.shutdown() for one in workers), return_exceptions=True)
