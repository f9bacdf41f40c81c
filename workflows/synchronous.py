"""Pattern 1, synchronous request: the client waits for the answer; the run continues after the client stops
waiting.
"""

from temporalio import workflow

from sevenfold.contracts import workflow_types
from sevenfold.contracts.runs.run import RunInput, RunResult
from sevenfold.workflows.runs.agent_call import AgentRun


@workflow.defn(name=workflow_types.SYNCHRONOUS_REQUEST)
class SynchronousRequest:
    """Calls an agent and returns its reply."""

    @workflow.init
    def __init__(self, run: RunInput) -> None:
        self._agent_run = AgentRun(run)

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        """Returns the agent's reply. Raises ApplicationError with an ErrorCode as its type; a cancelled run ends as
        Canceled.
        """
        return await self._agent_run.call_interactive()

    @workflow.signal(
        name="cancel", description="Cancels the run: the agent call is cancelled, and the run ends as Canceled."
    )
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        await self._agent_run.cancel()
