"""Health of webhook endpoints. Each failing endpoint has an `EndpointHealth` workflow; a healthy one has none."""

from enum import Enum

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.contracts.webhooks import ENDPOINT_MEMO, EndpointReport, EndpointState, endpoint_workflow_id


class HealthState(Enum):
    """`DEGRADED`: deliveries failed recently. `PAUSED`: no attempt now."""

    HEALTHY = 0
    DEGRADED = 1
    PAUSED = 2


class EndpointHealthActivities:
    """Reads and updates the `EndpointHealth` workflows."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def check_health(self, tenant: str, host: str) -> HealthState:
        """Returns the endpoint's health. A paused endpoint admits one probe an hour, for which this returns
        DEGRADED.
        """
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
            # The update id is the same when this activity is retried, so a probe whose worker died stays this hour's
            # probe.
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
        """Reports an attempt's result. A success on a healthy endpoint changes nothing."""
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
            if error.status != RPCStatusCode.NOT_FOUND:  # The endpoint is healthy already.
                raise
