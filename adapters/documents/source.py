"""The text of a document in any form in which a client may send it."""

import httpx

from sevenfold.adapters.documents.extraction import DocumentReader
from sevenfold.adapters.outbound.bounded import FetchError, fetch
from sevenfold.contracts.agents.document_errors import DocumentError
from sevenfold.contracts.agents.documents import (
    MAX_DOCUMENT_BYTES,
    Document,
    DocumentBytes,
    DocumentByUrl,
    DocumentText,
    decode_inline,
)
from sevenfold.contracts.agents.errors import DocumentUnavailable, DocumentUnreadable

FETCH_SECONDS = 30.0
_POINTER = "/document"


class DocumentSource:
    """Fetches documents by a guarded client (sevenfold.adapters.outbound) and reads them in child processes."""

    def __init__(self, client: httpx.AsyncClient, *, allow_loopback: bool) -> None:
        self._client = client
        self._allow_loopback = allow_loopback
        self._reader = DocumentReader()

    async def extract_text(self, document: Document, tenant: str) -> DocumentText:
        """Returns the text of a tenant's document for the agent. Raises DocumentUnavailable (retried) or
        DocumentUnreadable.
        """
        try:
            sent = await self._fetch(document) if isinstance(document, DocumentByUrl) else decode_inline(document)
            return await self._reader.extract(
                sent.data, content_type=sent.content_type, name=sent.name, title=sent.title, tenant=tenant
            )
        except FetchError as error:
            error_type = DocumentUnavailable if error.temporary else DocumentUnreadable
            raise error_type(str(error), pointer=_POINTER) from None
        except DocumentError as error:
            raise DocumentUnreadable(error.detail, pointer=_POINTER) from None
        except OSError as error:  # The child process did not start, or was killed.
            raise DocumentUnavailable(
                "The process that reads the document was interrupted.", pointer=_POINTER
            ) from error

    async def _fetch(self, document: DocumentByUrl) -> DocumentBytes:
        found = await fetch(
            self._client,
            document.url,
            limit=MAX_DOCUMENT_BYTES,
            seconds=FETCH_SECONDS,
            allow_loopback=self._allow_loopback,
        )
        return DocumentBytes(found.data, found.content_type or None, None, None)
