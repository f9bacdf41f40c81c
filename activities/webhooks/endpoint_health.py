"""Health of what gets webhooks. A failing host has an `EndpointHealth` workflow, a healthy one has none. Stored
endpoints have theirs in `WebhookEndpoints`.
"""

from enum import Enum

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.webhooks.endpoint_directory import EndpointDirectory
from sevenfold.contracts import workflow_types
from sevenfold.contracts.webhooks.delivery import ENDPOINT_MEMO, EndpointReport, EndpointState, endpoint_workflow_id
from sevenfold.contracts.webhooks.endpoints import DISABLE_AFTER, EndpointResult, endpoints_workflow_id


class HealthState(Enum):
    """`DEGRADED`: deliveries failed recently. `PAUSED`: no attempt now."""

    HEALTHY = 0
    DEGRADED = 1
    PAUSED = 2


class EndpointHealthActivities:
    """Reads and updates the health of hosts, and updates that of stored endpoints."""

    def __init__(self, client: Client, endpoints: EndpointDirectory) -> None:
        self._client = client
        self._endpoints = endpoints

    async def check_health(self, tenant: str, host: str) -> HealthState:
        """Returns the host's health. A paused host admits one probe an hour, for which this returns
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
        if report.endpoint_id is not None:
            await self._report_stored(report, report.endpoint_id)
            return
        workflow_id = endpoint_workflow_id(report.tenant, report.host)
        if not report.succeeded:
            await self._client.start_workflow(
                workflow_types.ENDPOINT_HEALTH,
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

    async def _report_stored(self, report: EndpointReport, endpoint_id: str) -> None:
        """Leaves out failures that change nothing, so that many failing deliveries do not flood the workflow."""
        endpoint = await self._endpoints.find(report.tenant, endpoint_id)
        if endpoint is not None and not report.succeeded:
            now = activity.info().scheduled_time  # the server's clock, by which the workflow counts
            is_known = endpoint.health.after_failure(now) == endpoint.health
            if endpoint.disabled is not None or (is_known and not endpoint.health.has_failed_for(DISABLE_AFTER, now)):
                return
        try:
            handle = self._client.get_workflow_handle(endpoints_workflow_id(report.tenant))
            await handle.signal("record_result", EndpointResult(id=endpoint_id, succeeded=report.succeeded))
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # The tenant's endpoints are gone.
                raise
