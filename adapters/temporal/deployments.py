"""Worker Deployments: which build of the workers gets new runs (Temporal's Worker Versioning).

The current build gets them, except for the share of the ramping build. Without a current build, workers without a
build id get them. Runs of the patterns end on the build that they started on; entities move to the current one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.enums.v1 import RoutingConfigUpdateState, WorkerDeploymentVersionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    DescribeWorkerDeploymentResponse,
    SetWorkerDeploymentCurrentVersionRequest,
    SetWorkerDeploymentRampingVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

_TIMEOUT = timedelta(seconds=10)

# A change reaches all task queues within this time, else the server is in trouble.
_SETTLE_SECONDS, _PAUSE_SECONDS = 30.0, 0.5

_SAME_CHANGE = timedelta(seconds=1)

# Time in which workers that have just started poll all their task queues.
_START_SECONDS = 10.0


class BuildStatus(StrEnum):
    """What a build gets. `inactive`: it has never been current or ramping. `draining`: its runs are still open."""

    INACTIVE = "inactive"
    CURRENT = "current"
    RAMPING = "ramping"
    DRAINING = "draining"
    DRAINED = "drained"


_STATUSES = {
    WorkerDeploymentVersionStatus.WORKER_DEPLOYMENT_VERSION_STATUS_CURRENT: BuildStatus.CURRENT,
    WorkerDeploymentVersionStatus.WORKER_DEPLOYMENT_VERSION_STATUS_RAMPING: BuildStatus.RAMPING,
    WorkerDeploymentVersionStatus.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINING: BuildStatus.DRAINING,
    WorkerDeploymentVersionStatus.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINED: BuildStatus.DRAINED,
}


_Change = SetWorkerDeploymentCurrentVersionRequest | SetWorkerDeploymentRampingVersionRequest

T = TypeVar("T")


def find_targets(current: T, ramping: T, ramp_percent: float) -> frozenset[T]:
    """Returns the builds that get new runs. `ramping` counts only with a share in percent."""
    return frozenset(({current} if ramp_percent < 100 else set()) | ({ramping} if ramp_percent > 0 else set()))


@dataclass(frozen=True)
class Build:
    """One build of the workers. `since`: when its status changed; `last_current`: when it last became current;
    `deactivated`: when it last ceased to be current or ramping.
    """

    build_id: str
    status: BuildStatus
    since: datetime | None
    last_current: datetime | None = None
    deactivated: datetime | None = None


@dataclass(frozen=True)
class Deployment:
    """Where new runs go. `current` and `ramping` None: workers without a build id. `ramp_percent` is 0 unless a build
    ramps. `token` names this state, for a change that is to fail if the state has changed.
    """

    name: str
    builds: tuple[Build, ...] = ()
    current: str | None = None
    current_since: datetime | None = None
    ramping: str | None = None
    ramp_percent: float = 0
    token: bytes = b""

    @property
    def has_ramp(self) -> bool:
        """Whether a share of the new runs goes elsewhere."""
        return self.ramp_percent > 0

    @property
    def targets(self) -> frozenset[str | None]:
        """The builds that get new runs; None stands for workers without a build id."""
        return find_targets(self.current, self.ramping, self.ramp_percent)

    @property
    def was_ever_changed(self) -> bool:
        """Whether anybody has decided where new runs go."""
        return self.has_ramp or self.current is not None or any(one.last_current for one in self.builds)

    @property
    def previous(self) -> str | None:
        """The build that was current before; None if those were workers without a build id."""
        since = self.current_since
        for one in self.builds:
            # The two changes are one, with one time.
            if one.last_current and one.deactivated and since and abs(one.deactivated - since) < _SAME_CHANGE:
                return one.build_id
        return None


class DeploymentError(Exception):
    """Temporal refuses a change; the message states why."""


class Deployments:
    """Reads and changes one Worker Deployment. All methods raise RPCError."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name

    async def read(self) -> Deployment:
        """Returns its state; without builds if no worker with a build id has ever polled."""
        found = await self._describe()
        return Deployment(self._name) if found is None else _parse(found)

    async def set_current(self, build_id: str | None, *, allow_no_workers: bool = False, token: bytes = b"") -> None:
        """Makes a build current, or workers without a build id (None). Returns when all task queues follow. Raises
        DeploymentError, also if there is a `token` and the state is no longer the one that it names.
        """
        service = self._client.workflow_service
        request = SetWorkerDeploymentCurrentVersionRequest(conflict_token=token)
        await self._change(service.set_worker_deployment_current_version, request, build_id, allow_no_workers)

    async def set_ramp(self, build_id: str | None, percent: float, *, allow_no_workers: bool = False) -> None:
        """Gives a build a share of the new runs, or ends the ramp (None). Returns when all task queues follow. Raises
        DeploymentError.
        """
        service = self._client.workflow_service
        request = SetWorkerDeploymentRampingVersionRequest(percentage=percent)
        await self._change(service.set_worker_deployment_ramping_version, request, build_id, allow_no_workers)

    async def count_open_workflows(self, build_id: str) -> int:
        """Returns how many workflows are open on a build."""
        query = f"TemporalWorkerDeploymentVersion = '{self._name}:{build_id}' AND ExecutionStatus = 'Running'"
        return (await self._client.count_workflows(query, rpc_timeout=_TIMEOUT)).count

    async def _describe(self) -> DescribeWorkerDeploymentResponse | None:
        request = DescribeWorkerDeploymentRequest(namespace=self._client.namespace, deployment_name=self._name)
        try:
            return await self._client.workflow_service.describe_worker_deployment(
                request, retry=True, timeout=_TIMEOUT
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    async def _change(
        self, change: Callable[..., Awaitable[object]], request: _Change, build_id: str | None, allow_no_workers: bool
    ) -> None:
        request.namespace, request.deployment_name = self._client.namespace, self._name
        request.build_id = build_id or ""
        request.allow_no_pollers = request.ignore_missing_task_queues = allow_no_workers
        await self._request(change, request)
        async with asyncio.timeout(_SETTLE_SECONDS):
            while True:
                with suppress(RPCError):  # The change is made; only its progress is unknown.
                    if not _is_in_progress(await self._describe()):
                        return
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _request(self, change: Callable[..., Awaitable[object]], request: _Change) -> None:
        """Repeats the request for a while: workers that have just started do not poll all task queues yet."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                await change(request, retry=True, timeout=_TIMEOUT)  # Temporal limits the rate of changes.
            except RPCError as error:
                if error.status not in (RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.NOT_FOUND):
                    raise
                if time.monotonic() > deadline:
                    raise DeploymentError(f"Temporal refuses the change: {error.message}") from None
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return


def _is_in_progress(found: DescribeWorkerDeploymentResponse | None) -> bool:
    if found is None:
        return False
    state = found.worker_deployment_info.routing_config_update_state
    return state == RoutingConfigUpdateState.ROUTING_CONFIG_UPDATE_STATE_IN_PROGRESS


def _parse(found: DescribeWorkerDeploymentResponse) -> Deployment:
    info = found.worker_deployment_info
    routing = info.routing_config
    return Deployment(
        info.name,
        tuple(
            Build(
                one.deployment_version.build_id,
                _STATUSES.get(one.status, BuildStatus.INACTIVE),
                _time_of(one.routing_update_time) or _time_of(one.create_time),
                _time_of(one.last_current_time),
                _time_of(one.last_deactivation_time),
            )
            for one in info.version_summaries
        ),
        current=routing.current_deployment_version.build_id or None,
        current_since=_time_of(routing.current_version_changed_time),
        ramping=routing.ramping_deployment_version.build_id or None,
        ramp_percent=routing.ramping_version_percentage,
        token=found.conflict_token,
    )


def _time_of(moment: Timestamp) -> datetime | None:
    return moment.ToDatetime(UTC) if moment.seconds else None
