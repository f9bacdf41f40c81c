"""Pattern 7, hybrid: the API chooses a synchronous, queued or streamed run; this workflow composes those patterns."""

from temporalio import workflow

from sevenfold.contracts import workflow_types
from sevenfold.contracts.runs.hybrid import HybridInput, Route
from sevenfold.contracts.runs.run import RunResult
from sevenfold.workflows.runs.agent_call import AgentRun


@workflow.defn(name=workflow_types.HYBRID)
class Hybrid:
    """Follows the route that the API chose. A wrong estimate changes how the client gets the answer, never the
    run.
    """

    @workflow.init
    def __init__(self, run: HybridInput) -> None:
        self._agent_run = AgentRun(run)

    @workflow.run
    async def run(self, run: HybridInput) -> RunResult:
        """Returns the agent's reply. Raises ApplicationError with an ErrorCode as its type; a cancelled run ends as
        Canceled.
        """
        match run.routing.chosen:
            case Route.SYNCHRONOUS:
                return await self._agent_run.call_hybrid()
            case Route.STREAMING:
                return await self._agent_run.call_streaming()
            case Route.QUEUE:
                return await self._agent_run.call_in_background()

    @workflow.signal(
        name="cancel", description="Cancels the run: the agent call is cancelled, and the run ends as Canceled."
    )
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        await self._agent_run.cancel()
