"""The activity that reads a document."""

from typing import Protocol

from temporalio import activity

from activities.failures import application_error
from activities.heartbeats import heartbeating
from contracts.analysis import DocumentOrder
from contracts.documents import Document, DocumentText
from contracts.verdicts import AgentError


class Source(Protocol):
    """What gets the text: `adapters.documents.source.DocumentSource`."""

    async def text_of(self, document: Document) -> DocumentText: ...


class Documents:
    """Holds the worker's source of documents."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @activity.defn
    async def read_document(self, order: DocumentOrder) -> DocumentText:
        """The document's text. Raises ApplicationError with a verdict as its type, as agent calls do."""
        async with heartbeating():
            try:
                return await self._source.text_of(order.document)
            except AgentError as error:
                raise application_error(error, activity.info().attempt) from error
