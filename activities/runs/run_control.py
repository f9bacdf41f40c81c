"""What a run asks of Temporal about itself."""

from temporalio import activity
from temporalio.client import Client

from sevenfold.contracts.calls import CancelRequest


class RunControl:
    """Holds the worker's client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn(name="request_cancellation")
    async def request_cancellation(self, request: CancelRequest) -> None:
        """Turns the `cancel` signal into Temporal's own cancellation, so that the run ends as Canceled.

        A workflow cannot do that to itself: ending with a CancelledError that nobody asked for counts as a
        failure, and the server refuses a workflow that cancels its own id. Asking twice changes nothing.
        """
        handle = self._client.get_workflow_handle(request.workflow_id, run_id=request.workflow_run_id)
        await handle.cancel()
