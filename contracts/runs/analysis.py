"""Pattern 4: the request and the workflow input."""

from typing import Any

from pydantic import ConfigDict, Field

from sevenfold.contracts.agents.documents import Document
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.requests import StartOptions, TaskName
from sevenfold.contracts.runs.run import RunInput

_EXAMPLE: dict[str, Any] = {
    "document": "https://client.com/doc.pdf",
    "webhookUrl": "https://client.com/webhooks/ai-results",
    "webhookSecret": "whsec_abc123",
}


class AnalyzeRequest(StartOptions):
    """Pattern 4: a document whose analysis is posted to a webhook: a URL with its secret, or an endpoint."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    document: Document
    task: TaskName = Field(default="analyze_document", description="What the agent does with the document.")


class ReadDocumentInput(Payload):
    """The document to read; `sealed_url` replaces the URL of one that is fetched."""

    document: Document
    sealed_url: str | None = None


class AnalysisInput(RunInput):
    """Input of `WebhookCallback`. The agent gets the document's text as `data.document`. `sealed_document_url` is
    sealed for the run's workflow id; the document itself then names the host only.
    """

    document: Document
    sealed_document_url: str | None = None
