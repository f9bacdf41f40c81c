"""The activity that reads a document."""

from typing import Protocol

from temporalio import activity

from sevenfold.activities.heartbeats import heartbeat_periodically
from sevenfold.activities.identity import current_tenant, current_workflow_id
from sevenfold.activities.runs.failures import to_application_error
from sevenfold.adapters.encryption.sealing import Sealer, SealError
from sevenfold.adapters.webhooks.sealed_urls import unseal_url
from sevenfold.contracts.agents.documents import Document, DocumentByUrl, DocumentText
from sevenfold.contracts.agents.errors import AgentError
from sevenfold.contracts.runs.analysis import ReadDocumentInput


class DocumentTextSource(Protocol):
    """Extracts the text (implemented by `sevenfold.adapters.documents.source.DocumentSource`)."""

    async def extract_text(self, document: Document, tenant: str) -> DocumentText: ...


class DocumentActivities:
    """Reads documents by the worker's document source."""

    def __init__(self, source: DocumentTextSource, sealer: Sealer | None) -> None:
        self._source = source
        self._sealer = sealer

    @activity.defn(name="read_document")
    async def read_document(self, read_input: ReadDocumentInput) -> DocumentText:
        """Returns the document's text. Raises ApplicationError with an ErrorCode as its type, as agent calls do, and
        SealError while this worker lacks the key of the document's URL.
        """
        document = self._unseal(read_input)
        async with heartbeat_periodically():
            try:
                return await self._source.extract_text(document, current_tenant())
            except AgentError as error:
                raise to_application_error(error, activity.info().attempt) from error

    def _unseal(self, read_input: ReadDocumentInput) -> Document:
        if read_input.sealed_url is None:
            return read_input.document
        if self._sealer is None:
            raise SealError("This worker has no SEVENFOLD_SECRET_KEY, which the document's URL needs. Set it.")
        url = unseal_url(self._sealer, read_input.sealed_url, owner=current_workflow_id())
        return DocumentByUrl(url=url)
