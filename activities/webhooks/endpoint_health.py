"""What is known of receivers: those that fail are remembered by a workflow of their own each, the others by none."""

from enum import Enum

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.contracts.webhooks import ENDPOINT_MEMO, EndpointReport, EndpointState, endpoint_workflow_id


class HealthState(Enum):
    """`DEGRADED`: it failed deliveries lately. `PAUSED`: it is not to be tried now."""

    HEALTHY = 0
    DEGRADED = 1
    PAUSED = 2


class EndpointHealthActivities:
    """Asks and tells the workflows `EndpointHealth`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def check_health(self, tenant: str, host: str) -> HealthState:
        """How the receiver has done lately. A paused one admits one delivery an hour: then the answer is AILING."""
        handle = self._client.get_workflow_handle(endpoint_workflow_id(tenant, host))
        try:
            description = await handle.describe()
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return HealthState.HEALTHY
            state: EndpointState = await description.memo_value(
                ENDPOINT_MEMO, EndpointState(), type_hint=EndpointState
            )
            if not state.is_paused:
                return HealthState.DEGRADED
            # The same question when this activity is repeated: a probe whose worker died is still the one in an hour.
            await handle.execute_update("acquire_probe", id=activity.info().workflow_run_id)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return HealthState.HEALTHY
        except WorkflowUpdateFailedError:
            return HealthState.PAUSED
        return HealthState.DEGRADED

    @activity.defn(name="report_endpoint")
    async def report_endpoint(self, report: EndpointReport) -> None:
        """Tells what became of an attempt. Of a receiver that is well nothing is remembered."""
        workflow_id = endpoint_workflow_id(report.tenant, report.host)
        if not report.succeeded:
            await self._client.start_workflow(
                "EndpointHealth",
                EndpointState(),
                id=workflow_id,
                task_queue=activity.info().task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal="record_failure",
                static_summary=f"{report.host} fails deliveries",
            )
            return
        try:
            await self._client.get_workflow_handle(workflow_id).signal("record_success")
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # it is well already
                raise
