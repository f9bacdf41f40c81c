"""What is known of receivers: those that fail are remembered by a workflow of their own each, the others by none."""

from enum import Enum

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from contracts.webhooks import RECEIVER_STATE, ReceiverNews, ReceiverState, receiver_of


class Standing(Enum):
    """`AILING`: it failed deliveries lately. `PAUSED`: it is not to be tried now."""

    WELL = 0
    AILING = 1
    PAUSED = 2


class Receivers:
    """Asks and tells the workflows `WebhookReceiver`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def standing(self, tenant: str, host: str) -> Standing:
        """How the receiver has done lately. A paused one admits one delivery an hour: then the answer is AILING."""
        handle = self._client.get_workflow_handle(receiver_of(tenant, host))
        try:
            description = await handle.describe()
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return Standing.WELL
            state: ReceiverState = await description.memo_value(
                RECEIVER_STATE, ReceiverState(), type_hint=ReceiverState
            )
            if not state.paused:
                return Standing.AILING
            # The same question when this activity is repeated: a probe whose worker died is still the one in an hour.
            await handle.execute_update("admit", id=activity.info().workflow_run_id)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return Standing.WELL
        except WorkflowUpdateFailedError:
            return Standing.PAUSED
        return Standing.AILING

    @activity.defn
    async def report_receiver(self, news: ReceiverNews) -> None:
        """Tells what became of an attempt. Of a receiver that is well nothing is remembered."""
        workflow_id = receiver_of(news.tenant, news.host)
        if not news.answered:
            await self._client.start_workflow(
                "WebhookReceiver",
                ReceiverState(),
                id=workflow_id,
                task_queue=activity.info().task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal="failed",
                static_summary=f"{news.host} fails deliveries",
            )
            return
        try:
            await self._client.get_workflow_handle(workflow_id).signal("answered")
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # it is well already
                raise
