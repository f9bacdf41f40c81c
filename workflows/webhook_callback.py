"""Pattern 4, webhook callback: an agent analyzes a document, and the gateway posts the result to the client's
webhook.
"""

from datetime import timedelta

from temporalio import workflow

from sevenfold.activities.runs.documents import DocumentActivities
from sevenfold.contracts import workflow_types
from sevenfold.contracts.payload import JsonObject
from sevenfold.contracts.runs.analysis import AnalysisInput, ReadDocumentInput
from sevenfold.contracts.runs.run import RunResult
from sevenfold.workflows.runs.agent_call import HEARTBEAT_TIMEOUT, AgentRun
from sevenfold.workflows.runs.retry_profiles import BACKGROUND


@workflow.defn(name=workflow_types.WEBHOOK_CALLBACK)
class WebhookCallback:
    """Reads the document and calls the agent with its text. The webhook gets every outcome."""

    @workflow.init
    def __init__(self, analysis: AnalysisInput) -> None:
        self._agent_run = AgentRun(analysis)

    @workflow.run
    async def run(self, analysis: AnalysisInput) -> RunResult:
        """Returns the agent's reply. Raises ApplicationError with an ErrorCode as its type; a cancelled run ends as
        Canceled.
        """
        document = self._read_document(analysis)
        return await self._agent_run.call_with_document(document)

    @workflow.signal(
        name="cancel", description="Cancels the run: the agent call is cancelled, and the run ends as Canceled."
    )
    async def cancel(self) -> None:
        """Sent by hand from the Temporal UI or CLI; takes no argument."""
        await self._agent_run.cancel()

    async def _read_document(self, analysis: AnalysisInput) -> JsonObject:
        text = await workflow.execute_activity_method(
            DocumentActivities.read_document,
            ReadDocumentInput(document=analysis.document, sealed_url=analysis.sealed_document_url),
            schedule_to_close_timeout=timedelta(seconds=analysis.timeout),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=BACKGROUND.retry_policy(),
            summary="read the document",
        )
        return {"document": text.model_dump(mode="json", by_alias=True)}
