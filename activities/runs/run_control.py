"""Requests of a run about itself."""

from temporalio import activity
from temporalio.client import Client

from sevenfold.contracts.runs.calls import CancelRequest


class RunControl:
    """Requests cancellations by the worker's client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn(name="request_cancellation")
    async def request_cancellation(self, request: CancelRequest) -> None:
        """Converts the `cancel` signal to Temporal's own cancellation, so that the run ends as Canceled.

        A workflow cannot do that itself: a CancelledError without a requested cancellation counts as a failure, and
        the server refuses a workflow that cancels its own id. Idempotent.
        """
        handle = self._client.get_workflow_handle(request.workflow_id, run_id=request.workflow_run_id)
        await handle.cancel()
