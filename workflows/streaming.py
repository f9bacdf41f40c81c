"""Pattern 6, streaming: what the agent says is read while it says it."""

from temporalio import workflow

from sevenfold.contracts.runs import RunInput, RunResult
from sevenfold.workflows.runs.agent_call import AgentRun


@workflow.defn(name="Streaming")
class Streaming:
    """Calls an agent that is listened to. Its words come to this run as signals, in batches, and stay in its
    history.
    """

    @workflow.init
    def __init__(self, run: RunInput) -> None:
        self._agent_run = AgentRun(run)

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        """Completes with the reply, fails with a verdict as the failure's type, or is cancelled."""
        return await self._agent_run.call_streaming()

    @workflow.signal(name="cancel", description="Stops the run: the agent is told, and the run ends as Canceled.")
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        await self._agent_run.cancel()
