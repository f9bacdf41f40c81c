"""Limits and result of reading a document, shared by the gateway and its child process."""

from dataclasses import dataclass
from typing import NamedTuple

from sevenfold.contracts.agents.document_errors import DocumentError, DocumentFault


@dataclass(frozen=True)
class DocumentLimits:
    """Per document. `seconds` limits both wall-clock and processor time, `memory_bytes` the address space of the
    child process including Python itself (60 MB). Of the text, `characters` are kept; exceeding another limit is an
    error.
    """

    seconds: float = 30.0
    memory_bytes: int = 1_073_741_824
    input_bytes: int = 20_000_000
    characters: int = 2_000_000
    pages: int = 2_000


class Extracted(NamedTuple):
    """Result of a parser. Text and title may be blank."""

    text: str
    title: str | None = None
    pages: int | None = None
    unread_pages: int = 0
    truncated: bool = False


def too_demanding_error(need: str) -> DocumentError:
    """The error of a document that exceeds a limit of `need`."""
    return DocumentError(
        DocumentFault.TOO_LARGE,
        f"The document needs more {need} than the limit. Send its text, or the document in parts.",
    )


def damaged_error() -> DocumentError:
    """The error of a file that its parser cannot read."""
    return DocumentError(
        DocumentFault.BROKEN,
        "The document is damaged or incomplete. Save it again in its application, or send its text.",
    )
