"""Pattern 4, webhook callback: a document is analyzed, and its sender is called back."""

from datetime import timedelta

from temporalio import workflow

from sevenfold.activities.runs.documents import DocumentActivities
from sevenfold.contracts.analysis import AnalysisInput, ReadDocumentInput
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.runs import RunResult
from sevenfold.workflows.runs.agent_call import HEARTBEAT_TIMEOUT, AgentRun
from sevenfold.workflows.runs.retry_profiles import BACKGROUND


@workflow.defn(name="WebhookCallback")
class WebhookCallback:
    """Reads the document, and asks the agent about it; the end goes to the webhook, whatever it is."""

    @workflow.init
    def __init__(self, analysis: AnalysisInput) -> None:
        self._agent_run = AgentRun(analysis)

    @workflow.run
    async def run(self, analysis: AnalysisInput) -> RunResult:
        """Completes with the reply, fails with a verdict as the failure's type, or is cancelled."""
        document = self._read_document(analysis)
        return await self._agent_run.call_with_document(document)

    @workflow.signal(name="cancel", description="Stops the run: the agent is told, and the run ends as Canceled.")
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        await self._agent_run.cancel()

    async def _read_document(self, analysis: AnalysisInput) -> JsonObject:
        text = await workflow.execute_activity_method(
            DocumentActivities.read_document,
            ReadDocumentInput(document=analysis.document),
            schedule_to_close_timeout=timedelta(seconds=analysis.timeout),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=BACKGROUND.retry_policy(0),
            summary="reads the document",
        )
        return {"document": text.model_dump(mode="json", by_alias=True)}
