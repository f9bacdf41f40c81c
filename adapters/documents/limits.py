"""What reading a document may cost, and what it yields: all that the gateway and its reading process share."""

from dataclasses import dataclass
from typing import NamedTuple

from sevenfold.contracts.document_errors import DocumentError, DocumentFault


@dataclass(frozen=True)
class Limits:
    """Per document. `seconds` is time on the clock and of the processor alike, `memory_bytes` all addresses of the
    reading process, Python itself included (60 MB). Of the text, `characters` are kept; the rest is an error.
    """

    seconds: float = 30.0
    memory_bytes: int = 1_073_741_824
    input_bytes: int = 20_000_000
    characters: int = 2_000_000
    pages: int = 2_000


class Extracted(NamedTuple):
    """What a reader found. The text may be blank, and the title too."""

    text: str
    title: str | None = None
    pages: int | None = None
    unread_pages: int = 0
    truncated: bool = False


def too_demanding_error(need: str) -> DocumentError:
    """The error for a document that needs more of something (`need`) than is given to one."""
    return DocumentError(
        DocumentFault.TOO_LARGE,
        f"The document needs more {need} than is given to one. Send its text, or the document in parts.",
    )


def damaged_error() -> DocumentError:
    """The error for a file that its reader cannot make sense of."""
    return DocumentError(
        DocumentFault.BROKEN,
        "The document is damaged or incomplete. Open it where it was made and save it anew, or send its text.",
    )
