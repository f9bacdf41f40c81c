"""Pattern 7, hybrid: answered at once, queued or streamed, whichever fits; the only one that composes the others."""

from temporalio import workflow

from sevenfold.contracts.hybrid import HybridInput, Route
from sevenfold.contracts.runs import RunResult
from sevenfold.workflows.runs.agent_call import AgentRun


@workflow.defn(name="Hybrid")
class Hybrid:
    """Goes the way that the door has chosen. A guess that was wrong changes how the client learns of the answer,
    never the run.
    """

    @workflow.init
    def __init__(self, run: HybridInput) -> None:
        self._agent_run = AgentRun(run)

    @workflow.run
    async def run(self, run: HybridInput) -> RunResult:
        """Completes with the reply, fails with a verdict as the failure's type, or is cancelled."""
        match run.routing.chosen:
            case Route.SYNCHRONOUS:
                return await self._agent_run.call_hybrid()
            case Route.STREAMING:
                return await self._agent_run.call_streaming()
            case Route.QUEUE:
                return await self._agent_run.call_in_background()

    @workflow.signal(name="cancel", description="Stops the run: the agent is told, and the run ends as Canceled.")
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        await self._agent_run.cancel()
