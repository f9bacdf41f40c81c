"""The build of this process's workers, and whether new runs go to it. See docs/operations/versioning.md."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from temporalio import client
from temporalio.client import Client, Interceptor, OutboundInterceptor
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError

from sevenfold.adapters.temporal.deployments import DeploymentError, Deployments
from sevenfold.adapters.temporal.task_queues import BuildRouting, read_routing
from sevenfold.runtime.config.settings import Settings

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 2.0

# Time in which the first build becomes current, before its absence is worth a warning.
_FIRST_SECONDS = 15.0


class EagerStarts(Interceptor):
    """Lets a start run on this process's own worker only while all new runs go to its build: the server would not
    refuse, and the run would be on a build that gets no new runs. Until a build is watched, eager starts are allowed.
    """

    def __init__(self) -> None:
        self.are_allowed = True

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        return _Outbound(next, self)


class _Outbound(OutboundInterceptor):
    def __init__(self, following: OutboundInterceptor, eager_starts: EagerStarts) -> None:
        super().__init__(following)
        self._eager_starts = eager_starts

    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:  # noqa: A002
        if not self._eager_starts.are_allowed:
            input.request_eager_start = False
        return await super().start_workflow(input)


@asynccontextmanager
async def watched_build(client: Client, settings: Settings, eager_starts: EagerStarts) -> AsyncIterator[None]:
    """While the block runs, logs whether new runs go to this process's build, with the command that sends them there.
    Does nothing without a build id.
    """
    build = settings.build
    if build is None:
        yield
        return
    eager_starts.are_allowed = False
    tasks = []
    if settings.set_current:
        tasks.append(asyncio.create_task(_make_first_current(client, settings.task_queue, build)))
    tasks.append(asyncio.create_task(_watch(client, settings, build, eager_starts, after=list(tasks))))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(
    client: Client,
    settings: Settings,
    build: WorkerDeploymentVersion,
    eager_starts: EagerStarts,
    *,
    after: list[asyncio.Task[None]],
) -> None:
    if after:  # What is about to change needs no warning.
        await asyncio.wait(after, timeout=_FIRST_SECONDS)
    known: BuildRouting | None = None
    while True:
        try:
            routing = await read_routing(client, settings.task_queue)
        except RPCError:  # Whether the build still gets all new runs is unknown.
            eager_starts.are_allowed = False
        else:
            eager_starts.are_allowed = routing.targets == {build}
            if routing != known:
                _report(build, routing)
            known = routing
        await asyncio.sleep(_CHECK_SECONDS)


async def _make_first_current(client: Client, task_queue: str, build: WorkerDeploymentVersion) -> None:
    """Makes the build current, unless anybody has decided before where new runs go. Temporal knows a build once its
    workers have polled.
    """
    deployments = Deployments(client, build.deployment_name)
    has_warned = False
    while True:
        try:
            found = await deployments.read()
            # The task queue may follow another deployment.
            if found.was_ever_changed or (await read_routing(client, task_queue)).targets != {None}:
                return
            if any(one.build_id == build.build_id for one in found.builds):
                await deployments.set_current(build.build_id, token=found.token)
                return
        except (RPCError, DeploymentError, TimeoutError) as error:
            if not has_warned:
                log.warning("the build cannot be made current yet, retrying", error=str(error))
            has_warned = True
        await asyncio.sleep(_CHECK_SECONDS)


def _report(build: WorkerDeploymentVersion, routing: BuildRouting) -> None:
    current = routing.current.build_id if routing.current else "workers without a build id"
    names = {"build_id": build.build_id, "deployment": build.deployment_name}
    if routing.targets == {build}:
        log.info("new runs go to this build", **names)
    elif build in routing.targets:
        ramping = routing.ramping.build_id if routing.ramping else "workers without a build id"
        log.info(
            "a share of the new runs goes to this build",
            **names,
            current=current,
            ramping=ramping,
            ramp_percent=routing.ramp_percent,
        )
    else:
        log.warning(
            "new runs do not go to this build",
            **names,
            current=current,
            command=f"sevenfold deploy current {build.build_id}",
        )
