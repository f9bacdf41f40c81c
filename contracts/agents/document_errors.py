"""Why a document cannot be read.

Separate from sevenfold.contracts.agents.documents: a child process reads each document, and importing pydantic would
be half of its start time.
"""

from enum import StrEnum


class DocumentFault(StrEnum):
    """What is wrong with a document. No retry can succeed."""

    ENCRYPTED = "encrypted"
    BROKEN = "broken"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    UNSUPPORTED_TYPE = "unsupported_type"


class DocumentError(Exception):
    """A document that cannot be read. `detail` is for the client: what is wrong, and what to do next."""

    def __init__(self, fault: DocumentFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
