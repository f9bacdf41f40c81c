"""The activity that reads a document."""

from typing import Protocol

from temporalio import activity

from sevenfold.activities.heartbeats import heartbeat_periodically
from sevenfold.activities.identity import current_tenant
from sevenfold.activities.runs.failures import to_application_error
from sevenfold.contracts.analysis import ReadDocumentInput
from sevenfold.contracts.documents import Document, DocumentText
from sevenfold.contracts.errors import AgentError


class DocumentTextSource(Protocol):
    """Extracts the text (implemented by `sevenfold.adapters.documents.source.DocumentSource`)."""

    async def extract_text(self, document: Document, tenant: str) -> DocumentText: ...


class DocumentActivities:
    """Reads documents by the worker's document source."""

    def __init__(self, source: DocumentTextSource) -> None:
        self._source = source

    @activity.defn(name="read_document")
    async def read_document(self, read_input: ReadDocumentInput) -> DocumentText:
        """Returns the document's text. Raises ApplicationError with an ErrorCode as its type, as agent calls do."""
        async with heartbeat_periodically():
            try:
                return await self._source.extract_text(read_input.document, current_tenant())
            except AgentError as error:
                raise to_application_error(error, activity.info().attempt) from error
