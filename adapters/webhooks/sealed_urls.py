"""URLs of webhooks and documents often are the credential: sealed as secrets are, and shown without their query."""

from urllib.parse import urlsplit, urlunsplit

from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.contracts.agents.documents import Document, DocumentByUrl


def seal_url(sealer: Sealer, url: str, *, owner: str) -> str:
    """Seals a URL for its owner: the workflow id of a run, or the sealing context of a subscription."""
    return sealer.seal(url, context=f"{owner} url")


def unseal_url(sealer: Sealer, sealed: str, *, owner: str) -> str:
    """Returns the URL. Raises SealError."""
    return sealer.unseal(sealed, context=f"{owner} url")


def redact_url(url: str) -> str:
    """Returns the URL with its query, user and password replaced by asterisks, and without its fragment."""
    parts = urlsplit(url)
    _, at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"***@{host}" if at else host, parts.path, "***" if parts.query else "", ""))


def origin_url(url: str) -> str:
    """Returns the URL of the host alone, which may stand in a history."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"


def seal_document(sealer: Sealer | None, workflow_id: str, document: Document) -> tuple[Document, str | None]:
    """Returns what a run's history may hold of a document, and its sealed URL if it has one. Without a sealer the
    document stays as it is: the caller refuses one with a URL.
    """
    if sealer is None or not isinstance(document, DocumentByUrl):
        return document, None
    return DocumentByUrl(url=origin_url(document.url)), seal_url(sealer, document.url, owner=workflow_id)
