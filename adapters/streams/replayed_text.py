"""The text that a further attempt or turn writes again, which readers may have already."""

import hashlib

from sevenfold.contracts.agents.steps import StreamMark


class ReplayedText:
    """Holds the text back until it is as long as it was at the mark."""

    def __init__(self, mark: StreamMark) -> None:
        self.mark = mark
        self._text = bytearray()

    def add(self, text: str) -> bool:
        """Adds a piece; returns whether the mark is reached."""
        self._text += text.encode()
        return len(self._text) >= self.mark.size

    @property
    def matches(self) -> bool:
        """Whether the text equals the earlier text, up to the mark."""
        before = memoryview(self._text)[: self.mark.size]
        return (
            len(self._text) >= self.mark.size
            and hashlib.blake2b(before, digest_size=16).hexdigest() == self.mark.digest
        )

    def rest(self) -> str:
        """Returns what follows the mark."""
        return self._text[self.mark.size :].decode()

    def whole(self) -> str:
        """Returns all of it."""
        return self._text.decode()
