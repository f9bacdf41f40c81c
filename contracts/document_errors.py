"""Why a document cannot be read, named once for those who find out and those who tell.

Apart from sevenfold.contracts.documents, because the process that reads documents is started for each of them, and
pydantic would be half of what that takes.
"""

from enum import StrEnum


class DocumentFault(StrEnum):
    """What is wrong with a document; none of it passes by trying again."""

    ENCRYPTED = "encrypted"
    BROKEN = "broken"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    UNSUPPORTED_TYPE = "unsupported_type"


class DocumentError(Exception):
    """A document that cannot be read. `detail` is for the client: what is wrong with it, and what to do next."""

    def __init__(self, fault: DocumentFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
