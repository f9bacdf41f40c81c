"""What pattern 4 is asked, and what its workflow takes."""

from typing import Any

from pydantic import ConfigDict, Field

from sevenfold.contracts.documents import Document
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.requests import StartOptions, TaskName, WebhookSecret, WebhookUrl
from sevenfold.contracts.runs import RunInput

_EXAMPLE: dict[str, Any] = {
    "document": "https://client.com/doc.pdf",
    "webhookUrl": "https://client.com/webhooks/ai-results",
    "webhookSecret": "whsec_abc123",
}


class AnalyzeRequest(StartOptions):
    """Pattern 4: a document whose analysis is posted to a webhook."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    document: Document
    task: TaskName = Field(default="analyze_document", description="What the agent shall do with it.")
    webhook_url: WebhookUrl
    webhook_secret: WebhookSecret


class ReadDocumentInput(Payload):
    """A document that an agent is to be asked about."""

    document: Document


class AnalysisInput(RunInput):
    """The one object that `WebhookCallback` takes. The agent gets the document's text as `data.document`."""

    document: Document
