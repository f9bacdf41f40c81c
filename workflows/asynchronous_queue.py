"""Pattern 2, asynchronous queue: the API accepts the job at once, and the job runs until it completes or its timeout
expires.
"""

from temporalio import workflow

from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.interface import Reply, Usage
from sevenfold.contracts.runs.jobs import JobInput
from sevenfold.contracts.runs.run import RunResult
from sevenfold.workflows.runs.agent_call import AgentRun
from sevenfold.workflows.runs.item_fan_out import ItemFanOut


@workflow.defn(name=workflow_types.ASYNCHRONOUS_QUEUE)
class AsynchronousQueue:
    """A job: one agent call for the whole job, or one call per item of its list (`fanOut`)."""

    @workflow.init
    def __init__(self, job: JobInput) -> None:
        self._agent_run = AgentRun(job)

    @workflow.run
    async def run(self, job: JobInput) -> RunResult:
        """Returns the agent's reply, or the counts of completed and failed items.

        Raises ApplicationError with an ErrorCode as its type; a cancelled run ends as Canceled.
        """
        if job.fan_out is None:
            return await self._agent_run.call_in_background()
        items = ItemFanOut(job, job.fan_out, self._agent_run.report_progress)
        counts = await self._agent_run.run_and_finalize(items.run())
        total = len(job.fan_out.items)
        failed = f", {counts.failed} failed" if counts.failed else ""
        used = counts.usage
        reply = Reply(
            usage=Usage(input_tokens=used.input_tokens, output_tokens=used.output_tokens) if used.tokens else None,
            response=f"{counts.completed} of {total} items completed{failed}.",
            data={"total": total, "completed": counts.completed, "failed": counts.failed},
        )
        seconds = (workflow.now() - workflow.info().workflow_start_time).total_seconds()
        return RunResult(reply=reply, duration_seconds=max(0.0, seconds))

    @workflow.signal(name="cancel", description="Cancels the job: it keeps its results so far and ends as Canceled.")
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        await self._agent_run.cancel()
