"""`/admin/tenants/{tenant}/erasure`: the erasure of a tenant's data, started by `DELETE …?erase=true`."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Path
from pydantic import Field
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy

from sevenfold.adapters.temporal.encoded import ActivityState, PendingActivity, has_pending_task, pending_activities
from sevenfold.adapters.temporal.find_execution import find_execution
from sevenfold.adapters.temporal.tenant_executions import TenantExecutions
from sevenfold.api.access.store import TenantStore
from sevenfold.api.dependencies import API_PREFIX, component
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import not_found
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts import workflow_types
from sevenfold.contracts.access.principals import TenantName
from sevenfold.contracts.agents.circuits import control_task_queue
from sevenfold.contracts.operations.erasure import (
    ERASURE_MEMO,
    ErasureInput,
    ErasurePhase,
    ErasureProgress,
    HistoryRemoval,
    Leftover,
    StopResult,
    erasure_workflow_id,
)
from sevenfold.contracts.payload import Payload

router = APIRouter(prefix=f"{API_PREFIX}/admin", tags=["administration"], route_class=StrictJsonRoute)

T = TypeVar("T")

_WORKFLOW_TYPE = workflow_types.TENANT_ERASURE
_BETWEEN_STEPS_SECONDS = 1.0


class ErasureView(Payload):
    """The erasure of a tenant's data: what was removed so far, and what is left."""

    tenant: str
    phase: ErasurePhase = Field(description="What it does now. `stopped`: an operator terminated it; repeat it.")
    requested_at: datetime
    ended_at: datetime | None
    cancelled: int = Field(description="Runs, events and deliveries whose cancellation was requested.")
    terminated: int = Field(description="Those of them that had not ended by the end of the grace period.")
    removed_histories: int = Field(description="Removed histories, of runs, events, deliveries and subscriptions.")
    removed_payloads: int = Field(description="Removed payloads over 256 kB.")
    removed_streams: int = Field(description="Removed streams in Redis.")
    removed_keys: int = Field(description="Removed keys that were created over the API.")
    configured_keys: int = Field(description="Keys in `sevenfold.toml`, which work again when the erasure is done.")
    left: list[Leftover] = Field(description="What could not be removed; known when the phase is `removing keys`.")
    last_failure: str | None = Field(description="Why the current step is repeated; null if it is not.")


@dataclass(frozen=True)
class Erasures:
    """Starts erasures and reads their progress, from memos and heartbeats: neither needs a worker. `grace_seconds`:
    how long cancelled work has to end.
    """

    client: Client
    store: TenantStore
    task_queue: str
    grace_seconds: float

    async def start(self, tenant: str) -> ErasureView:
        """Starts the erasure, or joins the one that runs. Raises 404 if there is neither such a tenant nor anything
        of it.
        """
        if (await self.store.load()).find_tenant(tenant) is None:
            running = await find_execution(self.client, erasure_workflow_id(tenant))
            is_running = running is not None and running.status is WorkflowExecutionStatus.RUNNING
            if not is_running and not await TenantExecutions(self.client, tenant).count():
                raise not_found(f"The tenant {tenant}")
        erasure = ErasureInput(tenant=tenant, requested_at=datetime.now(UTC), grace_seconds=self.grace_seconds)
        await self.client.start_workflow(
            _WORKFLOW_TYPE,
            erasure,
            id=erasure_workflow_id(tenant),
            task_queue=control_task_queue(self.task_queue),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            memo={ERASURE_MEMO: ErasureProgress(phase=ErasurePhase.CANCELLING, requested_at=erasure.requested_at)},
            static_summary=f"data of tenant {tenant}",
        )
        return await self.read(tenant)

    async def read(self, tenant: str) -> ErasureView:
        """Returns the tenant's last erasure. Raises 404 if there was none within the retention."""
        description = await self._describe(tenant)
        if description is None:
            raise not_found(f"An erasure of the tenant {tenant}")
        progress: ErasureProgress = await description.memo_value(ERASURE_MEMO, type_hint=ErasureProgress)
        if description.status not in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.COMPLETED):
            progress = progress.model_copy(update={"phase": ErasurePhase.STOPPED, "ended_at": description.close_time})
        step = next(iter(pending_activities(self.client, description)), None)
        if step is not None:
            progress = await self._add_heartbeat(progress, step)
        return ErasureView(
            tenant=tenant,
            **dict(progress),
            last_failure=await step.load_last_failure() if step and step.state is ActivityState.WAITING else None,
        )

    async def _describe(self, tenant: str) -> WorkflowExecutionDescription | None:
        """Describes the erasure, but not between two steps: then what the first has done is in neither heartbeat nor
        memo. Without a worker it does so after a second.
        """
        deadline = time.monotonic() + _BETWEEN_STEPS_SECONDS
        while True:
            description = await find_execution(self.client, erasure_workflow_id(tenant))
            if description is None or not has_pending_task(description) or time.monotonic() > deadline:
                return description
            if pending_activities(self.client, description):
                return description
            await asyncio.sleep(0.05)

    async def _add_heartbeat(self, progress: ErasureProgress, step: PendingActivity) -> ErasureProgress:
        """Adds what the current step has reported to what the steps before it have done."""
        match step.type_name:
            case "stop_executions":
                stopped = await _decode(step, StopResult, StopResult())
                return progress.model_copy(update={"cancelled": stopped.cancelled})
            case "remove_histories":
                removal = await _decode(step, HistoryRemoval, HistoryRemoval(found=0, left=0))
                return progress.model_copy(update={"removed_histories": progress.removed_histories + removal.removed})
        return progress


async def _decode(step: PendingActivity, kind: type[T], default: T) -> T:
    return (await step.heartbeat[:1].decode(kind))[0] if step.heartbeat else default


ErasuresDep = Annotated[Erasures, Depends(component("erasures"))]


@router.get("/tenants/{tenant}/erasure", operation_id="getErasure", summary="Watch an erasure", responses=PROBLEMS)
async def read_erasure(
    tenant: Annotated[TenantName, Path(description="The tenant's name.")], erasures: ErasuresDep
) -> ErasureView:
    """Returns the progress of the tenant's last erasure, also when the tenant is gone. 404 if there was none."""
    return await erasures.read(tenant)
